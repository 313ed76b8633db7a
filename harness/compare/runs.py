"""Two finished runs, variant by variant: paired by example and seed, or not comparable and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from harness import stats
from harness.compare.suites import change_of_suite, suite_digest
from harness.registry import METRICS
from harness.results.columns import ALL_SEEDS, numbers, paired, plugged_in
from harness.results.comparable import hardware_difference
from harness.results.evidence import Evidence, Missing, NonFinite, Unscored
from harness.results.metric import OUTCOMES, Column
from harness.results.run import Run, data_difference
from harness.stats import Interval

Verdict = Literal["better", "worse", "unclear", "not comparable", "failed"]

COSTS = ("flops_per_example", "latency_ms_p50", "peak_memory_bytes")
"""The costs that are compared, besides those that plug-ins add."""


def compared_costs() -> list[Column]:
    """The costs that are compared, each as a ratio."""
    known, scores = numbers(), {metric.name for metric in METRICS}
    return [known[name] for name in (*COSTS, *plugged_in()) if name not in scores]


class Incomparable(Exception):
    """Two variants of one name that cannot be compared; the message says why."""


class Failed(Exception):
    """A variant that failed in one of the runs; the message says why."""


@dataclass(frozen=True)
class Comparison:
    """One variant of both runs; every difference is the second run minus the first."""

    variant: str
    verdict: Verdict
    """By the suites' score: its interval excludes 0 and the corrected p-value is below .05; a NaN is a failure."""
    reason: str = ""
    """Why it is not comparable, or failed."""
    seeds: tuple[int, ...] = ()
    """Those that both runs have."""
    n: int | None = None
    """Examples."""
    accuracy: Interval | None = None
    differences: Mapping[str, Interval] = field(default_factory=dict)
    """Of every other metric that has a value for each example or document in both runs, by its name."""
    p: float | None = None
    """Of no difference in the suites' score, two-sided. Of accuracy the exact McNemar test; of several seeds, on the
    examples that one run gets right with more of them."""
    p_corrected: float | None = None
    """The same after Benjamini-Hochberg over all compared variants."""
    costs: Mapping[str, float | None] | None = None
    """Of each cost the second run's divided by the first's; None where it was not measured, or on another machine."""


@dataclass(frozen=True)
class RunComparison:
    """What two runs have in common, and how it differs."""

    variants: tuple[Comparison, ...]
    """In the first run's order."""
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    suite_changed: bool
    """Whether the suites differ: where a variant's task or pool does, it is not comparable."""
    other_machine: str | None
    """How the machines differ; then measured costs are not compared."""
    score: str = "accuracy"
    """What verdicts go by: the first score of the suites, where both have the same, else accuracy."""


def compare(first: Run, second: Run) -> RunComparison:
    """Compare the variants that two runs share, by name."""
    pair = _Pair(first, second)
    names = [list(dict.fromkeys(run.variants["variant"].astype(str))) for run in (first, second)]
    found = [pair.compared(name) for name in names[0] if name in names[1]]
    tested = [item for item in found if item.p is not None]
    p_values = stats.benjamini_hochberg([item.p for item in tested if item.p is not None])
    corrected = {item.variant: p for item, p in zip(tested, p_values, strict=True)}
    return RunComparison(
        tuple(_judged(item, pair.score, corrected.get(item.variant)) for item in found),
        tuple(name for name in names[0] if name not in names[1]),
        tuple(name for name in names[1] if name not in names[0]),
        suite_digest(first.record) != suite_digest(second.record),
        pair.other_machine,
        pair.score,
    )


def _judged(item: Comparison, score: str, p: float | None) -> Comparison:
    if p is None:
        return item
    difference = item.accuracy if score == "accuracy" else item.differences[score]
    assert difference is not None
    if paired()[score].better == "lower":
        difference = Interval(-difference.value, -difference.high, -difference.low, difference.n)
    return replace(item, p_corrected=p, verdict=stats.verdict(difference, p))


class _Pair:
    """Both runs, looked up by variant."""

    def __init__(self, first: Run, second: Run) -> None:
        self.runs = first, second
        self.sides = Evidence(first, "first run"), Evidence(second, "second run")
        scores = {run.scores_of_suite[0] for run in (first, second)}
        self.score = scores.pop() if len(scores) == 1 else "accuracy"
        self.other_machine = hardware_difference(second, first)
        self.other_data = data_difference(second.record, first.record)
        self.relabelled = _relabelled(first, second)

    def compared(self, variant: str) -> Comparison:
        try:
            self._check(variant)
            return self._paired(variant)
        except (Incomparable, Missing) as problem:
            return Comparison(variant, "not comparable", str(problem))
        except (Failed, NonFinite) as problem:
            return Comparison(variant, "failed", str(problem))

    def _check(self, variant: str) -> None:
        """Raise where the two are not the same variant on the same task."""
        for side in self.sides:
            status, reason = side.status(variant, ALL_SEEDS)
            if status == "failed":
                raise Failed(f"it failed in the {side.name}: {reason}")
            if status != "ok":
                raise Incomparable(f"it does not apply in the {side.name}: {reason}")
        if self.other_data:
            raise Incomparable(self.other_data)
        ours, theirs = (_summary_row(run, variant) for run in self.runs)
        if change := change_of_suite(*(run.record for run in self.runs), pool=str(ours.get("pool"))):
            raise Incomparable(change)
        for column in ("pool", "params", "members"):
            if ours.get(column) != theirs.get(column):
                raise Incomparable(f"its {column} differ: {ours.get(column)} and {theirs.get(column)}")

    def _paired(self, variant: str) -> Comparison:
        before, after = self._outcomes(variant, "accuracy")
        right_before, right_after = before.to_numpy(), after.to_numpy()
        if len(before) == 1:
            gained, lost = int((right_after > right_before).sum()), int((right_after < right_before).sum())
            accuracy = stats.paired_proportions(gained, lost, before.shape[1])
        else:
            accuracy = _difference(before, after)
        differences = self._differences(variant)
        if self.score == "accuracy":
            totals = np.nansum(right_before, axis=0), np.nansum(right_after, axis=0)
            p = stats.mcnemar_exact(totals[1] > totals[0], totals[0] > totals[1])
        elif self.score in differences:
            p = _p_of_no_difference(*self._outcomes(variant, self.score))
        else:
            raise Incomparable(f"the runs have no {self.score} of the same documents")
        return Comparison(
            variant,
            "unclear",
            seeds=tuple(int(seed) for seed in before.index),
            n=before.shape[1],
            accuracy=accuracy,
            differences=differences,
            p=p,
            costs=self._costs(variant),
        )

    def _outcomes(self, variant: str, metric: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """A row per seed that both have, a column per example, of the first run and the second.

        NaN in both where seeds have splits of their own, and one was not tested on an example.
        """
        before, after = (side.outcomes(variant, ALL_SEEDS, metric) for side in self.sides)
        common = before.index.intersection(after.index)
        if self.runs[0].splits_differ and len(common):  # what other seeds were tested on is not compared
            before, after = (table.loc[common].dropna(axis=1, how="all") for table in (before, after))
        ours, theirs = set(before.columns), set(after.columns)
        if ours != theirs:
            raise Incomparable(f"other examples: {len(ours - theirs)} are only in the first run, "
                               f"{len(theirs - ours)} only in the second")  # fmt: skip
        if changed := len(ours & self.relabelled):
            raise Incomparable(f"{changed} examples have another label")
        if common.empty:
            raise Incomparable("the runs have no seed in common")
        if not before.loc[common].isna().equals(after.loc[common].isna()):
            raise Incomparable("a seed was tested on other examples")
        if before.shape[1] < 2:
            raise Incomparable("one example is too few")
        return before.loc[common], after.loc[common]

    def _differences(self, variant: str) -> dict[str, Interval]:
        """The other paired metrics; one that a run may be without, and is, or has of other documents, is left out.

        So is one that the variant does not have, but the suite's score: what goes by that is not comparable.
        Of a metric that is plugged in here the runs may know nothing, and its faults are none of the variant's.
        """
        found, added = {}, plugged_in()
        for name, column in numbers().items():
            if column.outcome is None or name == "accuracy":
                continue
            try:
                before, after = self._outcomes(variant, name)
            except Unscored:
                if name == self.score:
                    raise
                continue
            except (Missing, Incomparable):
                if column.outcome in OUTCOMES and name not in added:  # that every run has
                    raise
                continue
            except NonFinite:
                if name not in added:
                    raise
                continue
            found[name] = _difference(before, after)
        return found

    def _costs(self, variant: str) -> dict[str, float | None]:
        ours, theirs = (_summary_row(run, variant) for run in self.runs)
        found: dict[str, float | None] = {}
        for column in compared_costs():
            before, after = (float(row.get(column.name, math.nan)) for row in (ours, theirs))
            known = math.isfinite(before) and math.isfinite(after) and before > 0
            found[column.name] = after / before if known and not (column.elsewhere and self.other_machine) else None
        return found


def _p_of_no_difference(before: pd.DataFrame, after: pd.DataFrame) -> float:
    above = stats.crossed_mean(after.to_numpy(np.float64) - before.to_numpy(np.float64)).p_below(0.0)
    return 2 * min(above, 1 - above)


def _difference(before: pd.DataFrame, after: pd.DataFrame) -> Interval:
    return stats.crossed_mean(after.to_numpy(np.float64) - before.to_numpy(np.float64)).interval()


def _summary_row(run: Run, variant: str) -> dict[str, Any]:
    rows = run.variants[(run.variants["variant"] == variant) & (run.variants["seed"] == ALL_SEEDS)]
    row: dict[str, Any] = rows.iloc[0].to_dict()
    return row


def _relabelled(first: Run, second: Run) -> set[str]:
    """The ids of examples that the two runs have different labels for."""
    labels = []
    for run in (first, second):
        if run.examples is None:
            return set()
        table = run.examples[["example_id", "label"]].drop_duplicates()
        labels.append(set(zip(table["example_id"].astype(str), table["label"], strict=True)))
    shared = {name for name, _ in labels[0]} & {name for name, _ in labels[1]}
    return {name for name, _ in labels[0] ^ labels[1]} & shared


def as_json(found: RunComparison) -> dict[str, Any]:
    """JSON values; NaN bounds are null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    result: dict[str, Any] = plain(asdict(found))
    return result
