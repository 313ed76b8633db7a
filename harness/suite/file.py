"""The keys of a suite file."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from harness.errors import BadInput
from harness.pools.source import AskedPool, PoolSource
from harness.registry import SOURCES
from harness.strict.fields import Name, Strict, said_as, without_usual
from harness.suite.costs import CostSpec, cost_spec

MAIN = "main"

REFERENCE = "best_single"
"""The method whose variant a pool is compared with, unless the suite names another: chosen on held-out."""

ACCURACY = "accuracy"
"""What a suite is decided by, unless it names other scores."""

Margin = Annotated[
    Annotated[float, Field(ge=0)] | Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?%$")],
    said_as("a number from 0, or a share of the reference's score, such as '1 %'"),
]

FIRST = ("hf", "train")
"""The sources that are in the digest of every suite, chosen or not: it is older than the others."""


YOUNGER = ("split", "score", "equivalence")
"""Keys that suites did not have at first."""


class PoolSpec(Strict):
    """Where a pool's members come from: exactly one source."""

    @pydantic.model_serializer(mode="wrap")
    def _chosen(self, handler: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Only what the suite says: its digest is the same whatever plug-ins are installed."""
        chosen = {name: spec for name, spec in handler(self).items() if spec is not None}
        return dict.fromkeys(FIRST) | chosen


def asked_pool(spec: PoolSpec, place: str) -> AskedPool:
    """The source of a pool and what the suite says to it; ``BadInput`` where there is none or several."""
    chosen = [(source, said) for source in SOURCES if (said := getattr(spec, source.name)) is not None]
    if len(chosen) != 1:
        hint = f"give it one of: {', '.join(source.name for source in SOURCES)}"
        raise BadInput("a pool has one source of members", place=place, hint=hint)
    return AskedPool(*chosen[0])


class Subsets(Strict):
    """Which subsets of a pool the correlation study takes: all of these sizes, or a fixed draw of ``at_most``."""

    sizes: Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1)]
    at_most: Annotated[int, Field(ge=3, le=10_000)] = 60


class Correlate(Strict):
    """The ensemble-versus-average study."""

    rule: Literal["linear", "log_linear"] = "linear"
    average: Literal["uniform_soup"] = "uniform_soup"
    pools: list[Name] = [MAIN]
    subsets: Subsets


class SuiteFile(Strict):
    """The keys of a suite file."""

    suite: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
    question: str = ""
    task: str | dict[str, Any]
    """A name of a kind's ``tasks``, or what a kind's ``spec`` takes (``suite.task``)."""
    pool: PoolSpec
    pools: dict[Name, PoolSpec] = {}
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1)] = [0]
    split: Annotated[
        Literal["shared", "per_seed"],
        Field(
            description="shared: all seeds have the same train, held-out and test examples; per_seed: each has a "
            "split of its own, of the same sizes, so that over the seeds other examples are test"
        ),
    ] = "shared"
    score: Annotated[
        str | Annotated[list[str], Field(min_length=1)],
        said_as("a metric, or a list of metrics"),
        Field(description="what verdicts, held-out choices, the answer and the order of the table go by: a metric, or "
        "several; the first decides"),
    ] = ACCURACY
    equivalence: Annotated[
        dict[str, Margin],
        Field(description="by metric: two scores that differ by no more are equivalent; a number, or \"1 %\" of the "
        "reference's score. By default half a point of accuracy, and 1 % of a loss"),
    ] = {}
    reference: str = "best_single"
    """What the variants of its pool are compared with; those of another pool with its own ``best_single``."""
    methods: Annotated[list[str | dict[str, dict[str, Any] | None]], Field(min_length=1)]
    correlate: Correlate | None = None
    cost: CostSpec = CostSpec()

    @property
    def scores(self) -> list[str]:
        """The metrics that verdicts go by, the one that decides first."""
        return [self.score] if isinstance(self.score, str) else self.score

    @pydantic.model_serializer(mode="wrap")
    def _as_before(self, handler: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the younger keys where they are as usual: a suite that has none keeps its digest."""
        one_score = {"score": self.scores[0]} if len(self.scores) == 1 else {}
        return without_usual(self, handler(self) | one_score, YOUNGER)


def suite_model() -> type[SuiteFile]:
    """The model of a suite file: the keys of ``SuiteFile``, with every source of members and every cost there is."""
    return _with_declared(tuple(SOURCES), cost_spec())


@cache
def _with_declared(sources: tuple[PoolSource, ...], costs: type[CostSpec]) -> type[SuiteFile]:
    chosen: dict[str, Any] = {source.name: (source.spec | None, None) for source in sources}
    pool = pydantic.create_model("PoolSpec", __base__=PoolSpec, __doc__=PoolSpec.__doc__, **chosen)
    given: dict[str, Any] = {
        "pool": (pool, ...),
        "pools": (dict[Name, pool], {}),  # type: ignore[valid-type]
        "cost": (costs, costs()),
    }
    return pydantic.create_model("SuiteFile", __base__=SuiteFile, __doc__=SuiteFile.__doc__, **given)
