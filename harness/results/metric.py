"""The interface of a metric: a score of a variant, declared once with all that is said of it anywhere."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from harness.registry import METRICS
from harness.says import Says
from harness.stats.interval import Interval

Better = Literal["higher", "lower"]
NAME = r"[a-z][a-z0-9_]*"
"""What names of columns look like."""
DOCUMENTS = "measures.parquet"
"""The outcome of a number whose value on every document is in that file, under its name."""


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
    """Where the number comes from: one of ``SOURCES``, or the column of words that says so."""
    elsewhere: bool = False
    """Whether another machine would give another number."""
    outcome: str | None = None
    """What pairs two systems example by example: the column of examples.parquet whose mean it is, or ``DOCUMENTS``."""
    label: str = ""
    """What prose and headings call it; empty: its name with spaces (``title``)."""

    @property
    def title(self) -> str:
        """What prose and headings call it."""
        return self.label or self.name.replace("_", " ")

    @property
    def sign(self) -> int:
        """1 where higher is better or neither is, -1 where lower is."""
        return -1 if self.better == "lower" else 1

    @property
    def is_share(self) -> bool:
        """Whether it is a share of successes, which is shown in per cent and differs in points."""
        return self.better == "higher" and (self.least, self.most) == (0.0, 1.0)

    @property
    def bounds(self) -> tuple[str, ...]:
        """The columns of its interval, the lower bound first; empty without one."""
        return () if self.interval is None else (f"{self.interval}_low", f"{self.interval}_high")


SOURCES = ("test split", "timer", "counter", "analytic")
"""Where numbers come from that come from one place in every run; analytic: predicted, and not measured."""

OUTCOMES = ("prediction", "confidence", "correct", "nll", "brier")
"""The outcomes that every variant has of every example, whatever the metrics are."""


@dataclass(frozen=True)
class Outcomes:
    """What one variant says of the test examples on one seed."""

    examples: pd.DataFrame
    """A row for each: the columns ``OUTCOMES`` (see ``outcomes.per_example``), and metrics' own outcomes."""
    labels: np.ndarray
    """[N] the truth."""
    classes: int
    clusters: Sequence[str] = ()
    """[N] the cluster of each example, where several count as one."""
    ids: Sequence[str] = ()
    """[N] the examples, where seeds may have others each; without them they are the same on every seed, in order."""
    says: Says = "probabilities"
    """What is known of the answers: of less than probabilities, outcomes that need these are NaN."""


Value = Interval | float | None
"""None: it does not apply, such as an AUROC to three classes. NaN is a failure of the variant."""
Score = Callable[[Outcomes], Value]
OverSeeds = Callable[[Sequence[Outcomes]], Value]
PerExample = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Values [N], finite, from normalised log-probabilities [N, C], float64 in nats, and labels [N], integers."""


@dataclass(frozen=True)
class Metric:
    """One registered metric."""

    column: Column
    score: Score
    over_seeds: OverSeeds | None
    """None: the mean over the seeds, without an interval where there are several. See ``outcomes.stacked`` for seeds
    that were not scored on the same examples."""
    per_example: PerExample | None
    """What fills ``column.outcome``, where that is an outcome of its own."""
    module: str
    reads: Says = "probabilities"
    """What has to be known of the answers: where it is not, there is no score."""

    @property
    def name(self) -> str:
        return self.column.name


def metric(
    column: Column,
    *,
    over_seeds: OverSeeds | None = None,
    per_example: PerExample | None = None,
    reads: Says = "probabilities",
) -> Callable[[Score], Score]:
    """Register ``function(outcomes) -> value``, or a value with its interval, as a metric.

    Raises:
        ValueError: for a name that is no lower-case identifier, or an outcome that is not said once.
    """
    if not re.fullmatch(NAME, column.name):
        raise ValueError(f"a metric's name has lower-case letters, digits and '_' only: {column.name!r}")
    fills = re.fullmatch(NAME, column.outcome or "") and column.outcome not in OUTCOMES
    if per_example is not None and not fills:
        raise ValueError(f"metric '{column.name}': 'outcome' names the new column that per_example fills")
    if per_example is None and column.outcome is not None and column.outcome not in OUTCOMES:
        raise ValueError(f"metric '{column.name}': nothing fills '{column.outcome}', give per_example")

    def register(function: Score) -> Score:
        METRICS.add(Metric(column, function, over_seeds, per_example, function.__module__, reads))
        return function

    return register
