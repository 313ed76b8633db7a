"""What the report's sentences are computed from: the summary rows, what they differ by, and per-example outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from harness import stats
from harness.evaluate.decisions import LIKE_THESE, OWN, POOLS, THESE, Scored, comparisons
from harness.kinds.kind import LACKING
from harness.results.columns import ALL_SEEDS, difference_of, paired, variant_columns
from harness.results.metric import DOCUMENTS, Column
from harness.results.outcomes import Outcomes
from harness.results.run import Run
from harness.results.scoring import in_order, known, scores_of
from harness.results.serving import FLOPS, own_costs, serving_of

DRAWS = 4_000
"""Resamples of an interval that is made here; those of the table come from the run."""


@dataclass(frozen=True)
class Gain:
    """How a variant differs from what it is compared with, turned so that above 0 is better."""

    value: float
    low: float
    """95 % interval of it alone."""
    high: float
    low_together: float
    """95 % interval that holds for the whole table; of a run of version 1 as for it alone."""
    high_together: float
    margin: float
    """Gains within it are equivalent; NaN where that is not known."""
    p: float
    p_adjusted: float
    verdict: str
    against: str
    units: int
    """Test examples or documents; 0 where that is not known."""


class Evidence:
    """A run's summary rows and examples, looked up by variant."""

    def __init__(self, run: Run) -> None:
        self.run = run
        # A run of an earlier version, or without a plug-in that is here now, has fewer columns.
        table = run.variants.reindex(columns=list(variant_columns()))
        self.rows = table[table["seed"] == ALL_SEEDS].reset_index(drop=True)
        self.serving = serving_of(run)
        self.own_costs = own_costs(run.measures.columns)
        """The measures that say what members cost by their own files, the one to go by first."""
        for name in self.own_costs:
            self.rows[name] = self.rows["variant"].map(run.measures[name])
        if (cost := self.serving.cost) and cost.name not in self.rows:  # the small files of a run lack measures
            self.rows[cost.name] = np.nan
        self.ok = self.rows[self.rows["status"] == "ok"].reset_index(drop=True)
        self.by_name: dict[str, dict[str, Any]] = {row["variant"]: row for row in self.ok.to_dict("records")}

    @property
    def reference(self) -> dict[str, Any] | None:
        """The reference's summary row, unless it failed."""
        return self.by_name.get(self.run.record["reference"]["variant"])

    @cached_property
    def scored_in_part(self) -> list[dict[str, Any]]:
        """The summary rows of the variants that are not applicable to some of the tasks."""
        told = self.run.details
        return [row for name, row in self.by_name.items()
                if any(LACKING in of_seed for of_seed in told.get(name, {}).values())]  # fmt: skip

    @cached_property
    def main(self) -> str:
        """The pool of the reference: what the user's own models can become."""
        pools = self.rows.loc[self.rows["variant"] == self.run.record["reference"]["variant"], "pool"]
        return str(pools.iloc[0]) if len(pools) else "main"

    @cached_property
    def pools(self) -> list[str]:
        """The pools that have variants, the main one first."""
        return sorted(dict.fromkeys(self.rows["pool"]), key=lambda name: name != self.main)

    @cached_property
    def scores(self) -> list[Column]:
        """The suite's scores, the one that decides first."""
        return scores_of(self.run)

    @property
    def score(self) -> Column:
        """The score that verdicts, picks and the order of tables go by."""
        return self.scores[0]

    @property
    def corrected(self) -> bool:
        """Whether verdicts and intervals allow for the number of comparisons: those of version 1 do not."""
        return not self.run.comparisons.empty

    @property
    def seeds(self) -> int:
        """How many seeds the run has."""
        return len(self.run.record["seeds"])

    @cached_property
    def _compared(self) -> dict[tuple[str, str, str, str], dict[str, Any]]:
        table = self.run.comparisons
        rows = table[table["seed"] == ALL_SEEDS].to_dict("records")
        return {(row["variant"], row["kind"], row["metric"], row["scope"]): row for row in rows}

    def gain(self, variant: str, column: Column | None = None, scope: str = THESE) -> Gain | None:
        """What a variant gains over its own pool's reference by a score; None for a reference, or where it has none.

        A run without comparisons.parquet has what stands in variants.csv: one scope, each difference alone.
        """
        column = column or self.score
        if self.corrected:
            row = self._compared.get((variant, OWN, column.name, scope))
            return _gain(row, column) if row else None
        row = self.by_name.get(variant, {})
        if scope != THESE or row.get("verdict", "reference") == "reference" or column.name not in paired():
            return None
        difference = difference_of(column)
        value, low, high = (float(row.get(name, np.nan)) for name in (difference.name, *difference.bounds))
        if np.isnan(value):
            return None
        margin = Scored(column, {}).equivalent_within(float(row[column.name]) - value)
        word = row["verdict"] if column.name == self.score.name else ""
        units = int(row["n"]) if pd.notna(row.get("n")) else 0
        against = self.run.record["reference"]["variant"]
        told = {"difference": value, "low": low, "high": high, "low_together": low, "high_together": high, "p": np.nan,
                "p_adjusted": np.nan, "margin": margin, "verdict": word, "against": against, "n": units}  # fmt: skip
        return _gain(told, column)

    def recipe_gain(self, variant: str, column: Column | None = None) -> Gain | None:
        """The same of models like these, seeds being a sample too; None with one seed."""
        return self.gain(variant, column, LIKE_THESE)

    def pool_gain(self, reference: str) -> Gain | None:
        """What another pool's reference gains over the main pool's, whose training differs."""
        row = self._compared.get((reference, POOLS, self.score.name, THESE))
        return _gain(row, self.score) if row else None

    def gain_over(self, one: str, other: str) -> Gain | None:
        """What one variant gains over another by the score, on these models and examples; None without the examples."""
        column = self.score
        values = {name: self.scored(name, column.name) for name in (one, other)}
        tables = {name: table for name, table in values.items() if table is not None}
        if len(tables) < 2:
            return None
        rows = comparisons(Scored(column, tables), {one: other}, {}, ALL_SEEDS)
        row = next((row for row in rows if row["scope"] == THESE), None)
        return _gain(row, column) if row else None

    def ordered(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Summary rows, the best by the score first; equal ones: the lower cost of serving, then the name."""
        return in_order(rows, self.score, self.serving.cost.name if self.serving.cost else FLOPS)

    def best(self, rows: pd.DataFrame) -> dict[str, Any] | None:
        """The best of these rows by the score."""
        ordered = self.ordered(rows[rows[self.score.name].notna()]).to_dict("records")
        return ordered[0] if ordered else None

    @cached_property
    def _outcomes(self) -> Outcomes:
        return Outcomes(self.run)

    @property
    def outcomes(self) -> list[str]:
        """What is known of every example: the columns of examples.parquet; none where there is no such file."""
        return self._outcomes.columns

    def has(self, *names: str) -> bool:
        """Whether there are per-example outcomes of all these variants."""
        return all(name in self.by_name and name in self._outcomes for name in names)

    def values(self, name: str, column: str) -> np.ndarray:
        """One column of a variant's examples, [seeds, examples]; NaN where a seed was not tested on an example."""
        return self._outcomes.values(name, column)

    def correct(self, name: str) -> np.ndarray:
        """Right (1) or wrong (0), [seeds, examples] float64; NaN where a seed was not tested on an example."""
        return self.values(name, "correct").astype(np.float64)

    def scored(self, name: str, score: str) -> np.ndarray | None:
        """A variant's values of a score, [seeds, examples] or [seeds, documents]; None where it is not known."""
        return known(self._values_of(name, score))

    def is_infinite(self, name: str, score: str) -> bool:
        """Whether a variant has no such score since some of its values are infinite."""
        values = self._values_of(name, score)
        return values is not None and bool(np.isinf(values).any())

    def _values_of(self, name: str, score: str) -> np.ndarray | None:
        column = paired()[score]
        return self._outcomes.scored(name, column) if column.outcome == DOCUMENTS or self.has(name) else None

    def cost_ratio(self, row: dict[str, Any]) -> float:
        """The cost of serving in units of the reference's; NaN where it is not known."""
        return self._ratio(row, self.reference)

    def own_cost_ratio(self, row: dict[str, Any]) -> float:
        """The cost of serving in units of its own pool's reference's; NaN where that has no scores."""
        name = self.run.record.get("references", {}).get(row["pool"], self.run.record["reference"]["variant"])
        return self._ratio(row, self.by_name.get(name))

    def _ratio(self, row: dict[str, Any], reference: dict[str, Any] | None) -> float:
        if self.serving.cost is None or reference is None:
            return float("nan")
        ours, theirs = (float(each[self.serving.cost.name]) for each in (row, reference))
        return ours / theirs if theirs else float("nan")


def _gain(row: dict[str, Any], column: Column) -> Gain:
    """A row of comparisons.parquet, turned so that above 0 is better."""
    def turned(low: str, high: str) -> tuple[float, float]:
        ends = float(row[low]), float(row[high])
        return ends if column.sign > 0 else (-ends[1], -ends[0])

    alone, together = turned("low", "high"), turned("low_together", "high_together")
    value = column.sign * float(row["difference"])
    return Gain(value, *alone, *together, row["margin"], row["p"], row["p_adjusted"], row["verdict"], row["against"],
                int(row["n"]))  # fmt: skip


def over_seeds(values: np.ndarray) -> stats.Interval:
    """Mean and interval of [seeds, examples], both taken as samples."""
    return stats.over_seeds(values, draws=DRAWS)
