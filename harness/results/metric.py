"""The interface of a metric: a score of a variant, declared once with all that is said of it anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from harness.registry import METRICS
from harness.stats.interval import Interval

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Column:
    """A number in ``variants.csv`` and ``scores.parquet``: tables, gate rules, verdicts and reports read it here."""

    name: str
    meaning: str
    """In a few words, for people; with what its interval is, where it has one."""
    better: Better | None = None
    """None: neither is better."""
    unit: str = ""
    """"nats", "bytes", "ms"; empty for shares and ratios."""
    least: float = 0.0
    most: float = math.inf
    interval: str | None = None
    """What the names of its bounds begin with ("diff" for diff_low and diff_high); None: it has no interval."""
    source: str = "test split"
    """Where the number comes from: "test split", "timer", "counter", or the column that says so."""
    elsewhere: bool = False
    """Whether another machine would give another number."""
    outcome: str | None = None
    """The column of examples.parquet whose mean it is: what pairs two systems example by example."""


@dataclass(frozen=True)
class Outcomes:
    """What one variant says of the test examples on one seed."""

    examples: pd.DataFrame
    """A row for each: ``prediction``, ``confidence``, ``correct``, ``nll``, ``brier``, and metrics' own outcomes."""
    labels: np.ndarray
    """[N] the truth."""
    classes: int


Score = Callable[[Outcomes], Interval | float]
OverSeeds = Callable[[Sequence[Outcomes]], Interval | float]
PerExample = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Values [N] from log-probabilities [N, C] and labels [N]."""


@dataclass(frozen=True)
class Metric:
    """One registered metric."""

    column: Column
    score: Score
    over_seeds: OverSeeds | None
    """None: the mean over the seeds, without an interval."""
    per_example: PerExample | None
    """Where its outcome is one of its own."""
    module: str

    @property
    def name(self) -> str:
        return self.column.name


def metric(
    column: Column, *, over_seeds: OverSeeds | None = None, per_example: PerExample | None = None
) -> Callable[[Score], Score]:
    """Register ``function(outcomes) -> value``, or a value with its interval, as a metric."""

    def register(function: Score) -> Score:
        METRICS.add(Metric(column, function, over_seeds, per_example, function.__module__))
        return function

    return register
