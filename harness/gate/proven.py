"""The evidence that a gate takes: scores, intervals, verdicts and the best only as a run's own examples give them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.evaluate.decisions import THESE
from harness.evaluate.rescoring import Rescoring
from harness.registry import METRICS
from harness.results.columns import column_of, difference_of, numbers, paired
from harness.results.evidence import Evidence, Missing, Score
from harness.results.metric import Column
from harness.results.other_columns import BITS, MEASURES, PICKED
from harness.results.recorded import suite_of
from harness.results.run import Run
from harness.stats.interval import Interval

SAME = 1e-9
"""How far, as a share, a score may be from what right and wrong answers give."""
LOSSES = 1e-6
"""The same of losses, which examples.parquet keeps with the digits of float32."""
GRAIN = 2e-7
"""Of the largest loss, the rounding that is left in the mean of a resample."""
DRAWN = 1e-3
"""How far p-values may be apart that are shares of draws."""

ENDS = ("low", "high", "low_together", "high_together")
_TESTS = ("p_adjusted", "mcnemar_p")
FAULTS = (ValueError, KeyError, IndexError, TypeError, RuntimeError, AssertionError, StopIteration)
"""What computing raises of examples that no run writes."""


class Proven(Evidence):
    """A run whose numbers count only where its examples and documents give them.

    What is no function of these, such as a cost, is taken as the table has it.
    """

    def __init__(self, run: Run, name: str) -> None:
        super().__init__(run, name)
        self._again = Rescoring(run)
        self._rescored: dict[tuple[str, str, str], Interval | None] = {}
        self._best: dict[str, dict[str, Any] | None] = {}
        self._compared: dict[tuple[str, str], Mapping[tuple[str, str], list[dict[str, Any]]]] = {}

    def score(self, variant: str, seed: str, metric: str) -> Score:
        """As ``Evidence``; ``Missing`` also where the table lacks the column, or the examples give another score."""
        if metric not in self.run.variants and metric in numbers():
            raise Missing(f"variants.csv of the {self.name} has no column '{metric}'")
        found = super().score(variant, seed, metric)
        again = self._rescore(variant, seed, metric)
        if again is None:
            return found
        share, grain = self._rounding(variant, metric)
        cancels = _column(metric).least < 0 or metric in _TESTS  # then a mean near 0 keeps the rounding of its parts
        pairs = [(found.value, again.value, grain if cancels else 0.0)]
        if not self._without_clusters(metric):
            pairs += [(found.low, again.low, grain), (found.high, again.high, grain)]
        if not all(_close(said, given, share, least) for said, given, least in pairs):
            said, given = (f"{each.value:.9g} ({each.low:.9g} .. {each.high:.9g})" for each in (found, again))
            what = f"the examples of the {self.name} give {metric} of '{variant}'"
            raise Missing(f"{what}, seed {seed}, as {given}, its tables say {said}")
        return found

    def is_computed(self, variant: str, metric: str) -> bool:
        """Whether a score follows from examples or documents, so that it is checked by these."""
        derived = (PICKED.name, *_TESTS, *(difference_of(each).name for each in paired().values()))
        return metric in METRICS.all() or metric in derived or (variant, metric) in self.run.measured

    def is_reference(self, variant: str, seed: str) -> bool:
        """As ``Evidence``; ``Missing`` where the table calls something the reference that is not."""
        if not super().is_reference(variant, seed):
            return False
        record = self.run.record
        named = {record["reference"]["variant"], *(record.get("references") or {}).values()}
        other = str(self._rows[variant, seed].get("reference"))
        if variant in named or (other in named and self._proved(lambda: self._again.alike(variant, other, seed))):
            return True
        raise Missing(f"variants.csv of the {self.name} calls '{variant}' the reference, which it is not")

    def comparison(self, variant: str, seed: str, metric: str, scope: str) -> dict[str, Any]:
        """As ``Evidence``; ``Missing`` also where the examples give another comparison for the whole table."""
        row = super().comparison(variant, seed, metric, scope)
        scale = self._rounding(variant, metric)[1]
        for again in self._comparisons_again(metric, seed).get((variant, scope), []):
            values = [(row[end], again[end]) for end in ("difference", "margin", *ENDS)]
            chances = [(row[name], again[name]) for name in ("p", "p_adjusted")]
            if all(_close(*pair, 1e-4, 10 * scale) for pair in values) and all(_close(*p, 0, DRAWN) for p in chances):
                return row
        raise Missing(f"the examples of the {self.name} do not give the comparison of '{variant}' by {metric}")

    def may_be_best(self, variant: str, metric: str) -> bool:
        """Whether a variant is in the confidence set of the best; ``Missing`` where run.json does not say so truly."""
        said = (self.run.record.get("best") or {}).get(metric)
        if not isinstance(said, dict) or not isinstance(said.get("set"), list):
            raise Missing(f"the {self.name} does not say which variants may be the best by {metric}")
        again = self._best_again(metric)
        if again is None or (variant in again["set"]) != (variant in said["set"]):
            raise Missing(f"the examples of the {self.name} do not give the variants that may be the best by {metric}")
        return variant in said["set"]

    def _rescore(self, variant: str, seed: str, metric: str) -> Interval | None:
        key = (variant, seed, metric)
        if key not in self._rescored:
            self._rescored[key] = self._derived(*key) or self._proved(lambda: self._again.score(*key))
            if self._rescored[key] is None and self._has_documents(metric):
                raise Missing(f"the {self.name} has no {metric} of the documents of '{variant}'")
        return self._rescored[key]

    def _has_documents(self, metric: str) -> bool:
        """Whether a metric is one of examples or documents in every run: ours is, lm-eval's where this run has any."""
        name, ours = metric.partition("/")[0], {*METRICS.all(), *(column.name for column in (BITS, *MEASURES))}
        return name in ours or any(known == metric for _, known in self.run.measured)

    def _derived(self, variant: str, seed: str, metric: str) -> Interval | None:
        """A column of a comparison, or of the pick of the best, from the examples; None of another metric."""
        first = self.run.scores_of_suite[0]
        if metric == PICKED.name:
            best = self._best_again(first)
            if best is None or best["variant"] != variant:
                raise Missing(f"the examples of the {self.name} do not give '{variant}' as the best by {first}")
            return Interval(best["corrected"], best["low"], best["high"], 0)
        score = next((name for name, each in paired().items() if difference_of(each).name == metric), None)
        if score is None and metric not in _TESTS:
            return None
        if score is not None and self.is_reference(variant, seed):
            return Interval(0.0, 0.0, 0.0, 0)
        against = self._proved(lambda: self._references(_column(score or first), seed)).get(variant)
        if metric == "mcnemar_p" and against is not None:
            p = self._proved(lambda: self._again.mcnemar(variant, against, seed))
            return Interval(p, math.nan, math.nan, 0)
        rows = self._comparisons_again(score or first, seed).get((variant, THESE), [])
        if not rows:
            raise Missing(f"the {self.name} has no comparison of '{variant}' by {score or first}, seed {seed}")
        if score is None:
            return Interval(rows[0]["p_adjusted"], math.nan, math.nan, 0)
        low, high = (math.nan if rows[0][end] is None else rows[0][end] for end in ("low", "high"))
        return Interval(rows[0]["difference"], low, high, 0)

    def _comparisons_again(self, metric: str, seed: str) -> Mapping[tuple[str, str], list[dict[str, Any]]]:
        if (metric, seed) not in self._compared:
            column = _column(metric)
            references = self._proved(lambda: self._references(column, seed))
            margin = (suite_of(self.run.record).get("equivalence") or {}).get(metric)
            self._compared[metric, seed] = self._proved(
                lambda: self._again.comparisons(column, seed, references, margin)
            )
        return self._compared[metric, seed]

    def _best_again(self, metric: str) -> dict[str, Any] | None:
        if metric not in self._best:
            self._best[metric] = self._proved(lambda: self._again.best(_column(metric)))
        return self._best[metric]

    def _references(self, column: Column, seed: str) -> dict[str, str]:
        """Of every variant with a score that is no reference, the one that it is compared with: the whole family."""
        found = {}
        for variant in self._again.scored(column, seed):
            if self.is_reference(variant, seed):
                continue
            rows = self._comparisons.get((variant, seed, column.name, THESE), [])
            if len(rows) != 1:
                raise Missing(f"the {self.name} has no comparison of '{variant}' by {column.name}, seed {seed}")
            against = str(rows[0]["against"])
            own = self._rows[variant, seed].get("reference")
            if not self.is_reference(against, seed) or (isinstance(own, str) and own != against):
                what = f"'{variant}' is compared with '{against}' in the {self.name}"
                raise Missing(f"{what}, which is not its reference")
            found[variant] = against
        return found

    def _proved(self, compute: Any) -> Any:
        try:
            return compute()
        except FAULTS as error:
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise Missing(f"the examples of the {self.name} are not those of a run: {reason}") from None

    def _rounding(self, variant: str, metric: str) -> tuple[float, float]:
        """The share that a score may be off, and what the ends of its interval may be off by as well."""
        column = _column(metric)
        if column.outcome == "correct":
            return SAME, SAME
        if column.outcome is None:
            return (DRAWN, DRAWN) if metric in _TESTS else (LOSSES, LOSSES)
        values = np.abs(self._values(variant, metric)[0]["value"].to_numpy(float))
        largest = float(values[np.isfinite(values)].max(initial=0.0))
        return LOSSES, GRAIN * max(largest, 1.0)

    def _without_clusters(self, metric: str) -> bool:
        """Whether the run is from before measures.parquet had the clusters that intervals go by."""
        documents = metric not in METRICS.all()
        return documents and "planned" not in self.run.record


def _column(metric: str) -> Column:
    column = column_of(metric)
    assert column is not None
    return column


def _close(said: float | None, given: float | None, share: float, least: float) -> bool:
    one, other = (math.nan if each is None else float(each) for each in (said, given))
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return math.isclose(one, other, rel_tol=share, abs_tol=least)
