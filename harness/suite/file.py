"""The keys of a suite file."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from harness.pools.specs import HfPool, TrainPool
from harness.strict.fields import Name, _Strict
from harness.suite.costs import CostSpec, cost_spec

MAIN = "main"


class PoolSpec(_Strict):
    """Where a pool's members come from: one of the two."""

    train: TrainPool | None = None
    hf: HfPool | None = None

    @property
    def chosen(self) -> TrainPool | HfPool:
        found = self.train or self.hf
        assert found is not None
        return found


class LmEval(_Strict):
    """Tasks of lm-eval by name, and a folder of task files, relative to the suite file."""

    lm_eval: Annotated[list[str], Field(min_length=1)]
    include_path: str | None = None


class Subsets(_Strict):
    """Which subsets of a pool the correlation study takes: all of these sizes, or a fixed draw of ``at_most``."""

    sizes: Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1)]
    at_most: Annotated[int, Field(ge=3)] = 60


class Correlate(_Strict):
    """The ensemble-versus-average study."""

    rule: Literal["linear", "log_linear"] = "linear"
    average: Literal["uniform_soup"] = "uniform_soup"
    pools: list[Name] = [MAIN]
    subsets: Subsets


class SuiteFile(_Strict):
    """The keys of a suite file."""

    suite: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
    question: str = ""
    task: str | LmEval
    pool: PoolSpec
    pools: dict[Name, PoolSpec] = {}
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    reference: str = "best_single"
    methods: Annotated[list[str | dict[str, dict[str, Any] | None]], Field(min_length=1)]
    correlate: Correlate | None = None
    cost: CostSpec = CostSpec()


def suite_model() -> type[SuiteFile]:
    """The model of a suite file, with all that is declared among its keys."""
    return _suite_model(cost_spec())


@cache
def _suite_model(costs: type[CostSpec]) -> type[SuiteFile]:
    return pydantic.create_model("SuiteFile", __base__=SuiteFile, __doc__=SuiteFile.__doc__, cost=(costs, costs()))
