"""The keys of a suite file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from harness.display.formats import read_bytes
from harness.pools.specs import HfPool, TrainPool
from harness.strict.fields import Name, Positive, _Strict

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


class CostSpec(_Strict):
    """Which costs are measured beyond those that can be counted."""

    latency: bool = True
    memory: bool = True
    energy: bool = True
    """Measured where the device has a counter; elsewhere it takes no time."""
    memory_budget: Annotated[int, pydantic.BeforeValidator(read_bytes)] | None = None
    """What batches and ensembles should fit in, such as 24GB; by default all memory of the device."""
    price_per_gpu_hour: Positive | None = None
    """In any currency, for the money that a million examples cost on a GPU."""


class SuiteFile(_Strict):
    """The keys of a suite file."""

    suite: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
    question: str = ""
    task: str | dict[str, Any]
    """A name of a kind's ``tasks``, or what a kind's ``spec`` takes (``suite.task``)."""
    pool: PoolSpec
    pools: dict[Name, PoolSpec] = {}
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    reference: str = "best_single"
    methods: Annotated[list[str | dict[str, dict[str, Any] | None]], Field(min_length=1)]
    correlate: Correlate | None = None
    cost: CostSpec = CostSpec()
