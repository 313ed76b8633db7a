"""What the report's sentences are computed from: the summary rows, and paired per-example outcomes over all seeds."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from harness import stats
from harness.results.columns import ALL_SEEDS, paired, variant_columns
from harness.results.metric import DOCUMENTS
from harness.results.run import Run

DRAWS = 4_000
"""Resamples of an interval that is made here; those of the table come from the run."""


class Evidence:
    """A run's summary rows and examples, looked up by variant."""

    def __init__(self, run: Run) -> None:
        self.run = run
        # A run of an earlier version, or without a plug-in that is here now, has fewer columns.
        table = run.variants.reindex(columns=list(variant_columns()))
        self.rows = table[table["seed"] == ALL_SEEDS].reset_index(drop=True)
        self.ok = self.rows[self.rows["status"] == "ok"].reset_index(drop=True)
        self.by_name: dict[str, dict[str, Any]] = {row["variant"]: row for row in self.ok.to_dict("records")}

    @property
    def reference(self) -> dict[str, Any] | None:
        """The reference's summary row, unless it failed."""
        return self.by_name.get(self.run.record["reference"]["variant"])

    @cached_property
    def _tables(self) -> dict[str, dict[str, np.ndarray]]:
        examples = self.run.examples
        if examples is None or examples.empty:
            return {}
        tables = {}
        for name, group in examples.groupby("variant", observed=True, sort=True):
            if name in self.by_name:
                columns = ("label", "prediction", "confidence", "correct", "nll")
                tables[str(name)] = {c: self._table(group, c) for c in columns}
        return tables

    def _table(self, group: pd.DataFrame, column: str) -> np.ndarray:
        """One column of a variant's rows, [seeds, examples]; the columns are the same for every variant."""
        seeds = self.run.record["seeds"]
        if not self.run.splits_differ:
            return group[column].to_numpy().reshape(len(seeds), -1)
        places = self.run.places
        table = np.full((len(seeds), len(places)), np.nan)
        table[group["seed"].map(seeds.index), group["example_id"].astype(str).map(places)] = group[column]
        return table

    def has(self, *names: str) -> bool:
        """Whether there are per-example outcomes of all these variants."""
        return all(name in self._tables for name in names)

    def values(self, name: str, column: str) -> np.ndarray:
        """One column of a variant's examples, [seeds, examples]; NaN where a seed was not tested on an example."""
        return self._tables[name][column]

    def correct(self, name: str) -> np.ndarray:
        """Right (1) or wrong (0), [seeds, examples] float64; NaN where a seed was not tested on an example."""
        return self.values(name, "correct").astype(np.float64)

    def difference(self, one: str, other: str) -> stats.Interval:
        """Accuracy of one variant minus another's, paired by example, over seeds and examples."""
        return over_seeds(self.correct(one) - self.correct(other))

    def direction(self, one: str, other: str, comparisons: int) -> int:
        """1 where one variant is more accurate than the other, -1 where it is less, 0 where neither is shown.

        ``comparisons`` says how many there were to pick this one from: chance makes any of them look different at 5 %
        at most (Bonferroni), whichever of them the data had us pick.
        """
        difference = self.correct(one) - self.correct(other)
        confidence = 1 - 0.05 / max(1, comparisons)
        if len(difference) == 1:
            gained, lost = int((difference > 0).sum()), int((difference < 0).sum())
            interval = stats.paired_proportions(gained, lost, difference.size, confidence)
        else:
            interval = stats.crossed_mean(difference).interval(confidence)
        return int(interval.low > 0) - int(interval.high < 0)

    @cached_property
    def members(self) -> list[str]:
        """The rows of the main pool's single members, if the suite has them all."""
        rows = self.ok[(self.ok["method"] == "member") & (self.ok["pool"] == "main")]
        names = sorted(rows["variant"])
        expected = self.run.record["pools"].get("main", {}).get("members", 0)
        return names if len(names) == expected and self.has(*names) else []

    def mean_member(self, column: str = "correct") -> np.ndarray:
        """The mean over the members of a column, [seeds, examples]."""
        return np.mean([self.values(name, column).astype(np.float64) for name in self.members], axis=0)

    def flops_ratio(self, row: dict[str, Any]) -> float:
        """FLOPs per example in units of the reference's."""
        reference = self.reference
        return float(row["flops_per_example"] / reference["flops_per_example"]) if reference else float("nan")

    def scored(self, name: str, score: str) -> np.ndarray | None:
        """A variant's values of a score, [seeds, examples] or [seeds, documents]; None where the run has none."""
        outcome = paired()[score].outcome
        if outcome == DOCUMENTS:
            return self._documents.get((name, score))
        if not self.has(name):
            return None
        if outcome in self._tables[name]:
            return self.values(name, outcome).astype(np.float64)
        examples = self.run.examples
        if examples is None or outcome not in examples:
            return None
        return self._table(examples[examples["variant"] == name], str(outcome)).astype(np.float64)

    @cached_property
    def _documents(self) -> dict[tuple[str, str], np.ndarray]:
        """The scores of documents that are of the whole task, [seeds, documents]."""
        table = self.run.document_measures
        if table is None:
            return {}
        whole = table[~table["metric"].str.contains("/")]
        groups = whole.groupby(["variant", "metric"], observed=True)
        seeds = len(self.run.record["seeds"])
        return {(str(v), str(m)): rows["value"].to_numpy(np.float64).reshape(seeds, -1) for (v, m), rows in groups}


def over_seeds(values: np.ndarray) -> stats.Interval:
    """Mean and interval of [seeds, examples], both taken as samples."""
    return stats.over_seeds(values, draws=DRAWS)


def is_one_model(evidence: Evidence, row: dict[str, Any]) -> bool:
    """Whether a variant costs at inference about what one model does."""
    return evidence.flops_ratio(row) <= 1.5


def best(rows: pd.DataFrame) -> dict[str, Any] | None:
    """The most accurate row; equal ones: fewer FLOPs, then the name."""
    if rows.empty:
        return None
    ordered = rows.sort_values(["accuracy", "flops_per_example", "variant"], ascending=[False, True, True])
    row: dict[str, Any] = ordered.iloc[0].to_dict()
    return row
