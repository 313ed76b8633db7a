"""What a gate reads in a run: a variant's status, one value with its interval, and its outcome on every example."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from harness.errors import BadInput
from harness.results.columns import (
    ALL_SEEDS,
    COMPARISON_COLUMNS,
    EXAMPLE_COLUMNS,
    MEASURE_COLUMNS,
    SCORE_COLUMNS,
    column_of,
    example_columns,
    numbers,
)
from harness.results.metric import DOCUMENTS
from harness.results.run import Run, read_run
from harness.stats import seed_means

IDENTITY = ("variant", "seed", "example_id", "task", "label", "cluster")
"""The columns of examples.parquet that say which example a row is of; the others are outcomes."""


BOUNDS = ("low", "high", "low_together", "high_together")
"""Of a comparison."""


class Missing(Exception):
    """There is no such row, value or table; the message says which."""


class Unscored(Missing):
    """A variant that has results has none by this score: it needs more than is known of the answers, or is infinite."""


class NonFinite(Exception):
    """There is a value and it is NaN or infinite."""


@dataclass(frozen=True)
class Score:
    """One value of scores.parquet; NaN bounds: it has no interval."""

    value: float
    low: float
    high: float


def read_tables(folder: Path) -> Run:
    """A finished run whose tables can all be read; ``BadInput`` where one is cut off or lacks columns."""
    run = read_run(folder)
    if run.record["schema_version"] > 1 and not (run.folder / "comparisons.parquet").is_file():
        raise BadInput("comparisons.parquet is missing", place=str(folder), hint="name the folder of a whole run")
    try:
        tables = {
            "variants.csv": (run.variants, {"variant", "seed", "status", "reason"}),
            "scores.parquet": (run.scores, set(SCORE_COLUMNS)),
            "examples.parquet": (run.examples, set(EXAMPLE_COLUMNS) - {"calls", "cluster"}),
            "measures.parquet": (run.document_measures, set(MEASURE_COLUMNS) - {"cluster"}),
            "comparisons.parquet": (run.comparisons, set(COMPARISON_COLUMNS)),
        }
    except (OSError, ValueError) as error:  # pandas' and pyarrow's errors of bad files are ValueErrors
        raise BadInput(f"a table cannot be read: {error}", place=str(folder), hint="was the file cut off?") from None
    outcomes = tuple(column for column in example_columns() if column not in IDENTITY)
    numeric = {"variants.csv": tuple(numbers()), "scores.parquet": ("value", "low", "high"),
               "examples.parquet": outcomes, "measures.parquet": ("value",),
               "comparisons.parquet": ("difference", *BOUNDS, "p", "p_adjusted", "margin", "n")}  # fmt: skip
    for name, (table, columns) in tables.items():
        if table is None:
            continue
        if lacking := columns - set(table.columns):
            raise BadInput(f"{name} has no column '{sorted(lacking)[0]}'", place=str(folder))
        for column in numeric[name]:
            if column in table and len(table) and not is_numeric_dtype(table[column]):
                raise BadInput(f"column '{column}' of {name} holds something that is not a number", place=str(folder))
    return run


class Evidence:
    """A run, looked up by variant and seed; ``name`` is what messages call it."""

    def __init__(self, run: Run, name: str) -> None:
        self.run, self.name = run, name
        self._known: dict[str, dict[str, set[Any]]] = {}

    @cached_property
    def _rows(self) -> dict[tuple[str, str], dict[str, Any]]:
        rows = self.run.variants.to_dict("records")
        return {(str(row["variant"]), str(row["seed"])): row for row in rows}

    @cached_property
    def _scores(self) -> dict[tuple[str, str, str], Score]:
        table = self.run.scores
        keys = zip(table["variant"].astype(str), table["seed"].astype(str), table["metric"].astype(str), strict=True)
        values = table[["value", "low", "high"]].astype(float).to_numpy()
        return {key: Score(*map(float, row)) for key, row in zip(keys, values, strict=True)}

    def matching(self, pattern: str, seed: str) -> list[str]:
        """The variants with a row of this seed that fit a pattern, in the table's order."""
        return [variant for variant, of in self._rows if of == seed and matches(pattern, variant)]

    def status(self, variant: str, seed: str) -> tuple[str, str]:
        """A variant's status, and the reason where it is not ok; ``Missing`` where it has no row."""
        row = self._rows.get((variant, seed))
        if row is None:
            raise Missing(f"the {self.name} has no '{variant}' of seed {seed}")
        return str(row["status"]), "" if row["status"] == "ok" else str(row["reason"])

    def is_reference(self, variant: str, seed: str) -> bool:
        """Whether it is what the others of its pool are compared with."""
        row = self._rows.get((variant, seed), {})
        return str(row.get("verdict")) == "reference"

    def score(self, variant: str, seed: str, metric: str) -> Score:
        """A value and its interval.

        Raises:
            Missing: no such row, a variant that is not ok, no value (``Unscored``), or files that disagree about it.
            NonFinite: a value that is NaN or infinite, or that the metric cannot have.
        """
        for each in (seed, *(str(s) for s in self.run.record["seeds"] if seed == ALL_SEEDS)):
            status, reason = self.status(variant, each)
            if status != "ok":
                raise Missing(f"'{variant}' is {status} in the {self.name}: {reason}")
        found = self._scores.get((variant, seed, metric))
        cell = self._rows[variant, seed].get(metric)
        if found is None:
            lacking = f"the {self.name} has no {metric} of '{variant}', seed {seed}"
            empty = metric in self._rows[variant, seed] and (cell is None or math.isnan(float(cell)))
            raise Unscored(lacking + self._why_unscored(variant, metric)) if empty else Missing(lacking)
        if not math.isfinite(found.value) or (cell is not None and not math.isfinite(float(cell))):
            raise NonFinite(f"{metric} of '{variant}' in the {self.name} is not a finite number")
        if cell is not None and not math.isclose(float(cell), found.value, rel_tol=1e-9):
            raise Missing(f"variants.csv and scores.parquet of the {self.name} disagree on {metric} of '{variant}'")
        column = column_of(metric)
        if column is not None and not column.least <= found.value <= column.most:
            raise NonFinite(f"{metric} of '{variant}' in the {self.name} is {found.value:g}, which it cannot be")
        if found.low > found.high:
            raise Missing(f"the interval of {metric} of '{variant}' in the {self.name} ends before it begins")
        return found

    def _why_unscored(self, variant: str, metric: str) -> str:
        """What the examples say of a score that there is not; empty where that is nothing."""
        outcome = column.outcome if (column := column_of(metric)) is not None else None
        if outcome is None or (table := self._examples.get(variant)) is None or outcome not in table:
            return ""
        lost = int(np.isinf(table[outcome].to_numpy(float)).sum())
        return f": it is infinite on {lost:,} of {len(table):,} test examples" if lost else ""

    def comparison(self, variant: str, seed: str, metric: str, scope: str) -> dict[str, Any]:
        """A row of comparisons.parquet: the variant against the reference of its pool.

        Raises:
            Missing: no such row, or one that the examples do not give.
        """
        rows = self._comparisons.get((variant, seed, metric, scope), [])
        if len(rows) != 1:
            old = "" if len(self.run.comparisons) else "; it was made before there were any"
            what = f"{len(rows) or 'no'} comparison{'s' if rows else ''} of '{variant}' by {metric} for {scope}"
            raise Missing(f"the {self.name} has {what}, seed {seed}{old}")
        against = str(rows[0]["against"])
        ours, theirs = (self.outcomes(name, seed, metric) for name in (variant, against))
        if list(ours.columns) != list(theirs.columns) or list(ours.index) != list(theirs.index):
            raise Missing(f"'{variant}' and '{against}' were not scored on the same examples in the {self.name}")
        difference = mean_over_seeds(ours.to_numpy() - theirs.to_numpy())
        rounding = 1e-6 * max(1.0, float(np.nanmax(np.abs(ours.to_numpy()))))
        if not math.isclose(difference, rows[0]["difference"], rel_tol=1e-4, abs_tol=rounding):
            raise Missing(f"the examples of the {self.name} do not give the difference of '{variant}' in {metric}")
        return rows[0]

    @cached_property
    def _comparisons(self) -> dict[tuple[str, str, str, str], list[dict[str, Any]]]:
        found: dict[tuple[str, str, str, str], list[dict[str, Any]]] = {}
        for row in self.run.comparisons.to_dict("records"):
            if row["kind"] == "own pool":
                key = (str(row["variant"]), str(row["seed"]), str(row["metric"]), str(row["scope"]))
                found.setdefault(key, []).append({str(name): value for name, value in row.items()})
        return found

    def outcomes(self, variant: str, seed: str, metric: str) -> pd.DataFrame:
        """The values behind a score: a row per seed, a column per example or document, both sorted.

        Where every seed has a split of its own, the columns are the examples of all that are asked for, and NaN says
        that a seed was not tested on one.

        Raises:
            Missing: no examples, some example without a value, no score (``Unscored``), or values that are not its.
            NonFinite: a value that is NaN or infinite, of a score that there is.
        """
        table, one = self._values(variant, metric)
        score = self.score(variant, seed, metric)
        if seed != ALL_SEEDS:
            table = table[table["seed"].astype(str) == seed]
        if table.duplicated(["seed", one]).any():
            raise Missing(f"an example of '{variant}' is scored twice in the {self.name}")
        values = table.pivot(index="seed", columns=one, values="value").astype(float)
        whole = self._has_all(table, one, metric) if self.run.splits_differ else len(table) == values.size
        expected = [str(s) for s in self.run.record["seeds"]] if seed == ALL_SEEDS else [seed]
        if sorted(values.index.astype(str)) != sorted(expected) or not whole:
            raise Missing(f"some examples or seeds of '{variant}' are missing in the {self.name}")
        if not np.isfinite(known := table["value"].to_numpy(float)).all():
            raise NonFinite(f"{metric} of an example of '{variant}' in the {self.name} is not a finite number")
        mean, column = mean_over_seeds(values.to_numpy()), column_of(metric)
        cancels = column is not None and column.least < 0  # then a mean near 0 keeps the rounding of what it is of
        rounding = 1e-6 * float(np.abs(known).max()) if cancels else 0.0
        if not math.isclose(mean, score.value, rel_tol=1e-5, abs_tol=rounding):
            raise Missing(f"the examples of the {self.name} do not give the {metric} of '{variant}'")
        return values

    def _has_all(self, table: pd.DataFrame, one: str, metric: str) -> bool:
        """Whether a variant's values are of all the examples, or documents, that any variant has on the same seeds.

        For runs whose seeds have splits of their own: these have one size, and are all of the run's examples.
        """
        tested = self._tested(one, metric)
        if one == "example_id":
            sizes, count = {len(each) for each in tested.values()}, sum(self.run.record["task"]["documents"].values())
            if len(sizes) > 1 or len(set().union(*tested.values())) != count:
                return False
        return all(count == len(tested[str(seed)]) for seed, count in table.groupby("seed").size().items())

    def _tested(self, one: str, metric: str) -> dict[str, set[Any]]:
        """The examples, or the documents of a metric, that any variant has, for each seed."""
        of = "" if one == "example_id" else metric
        if of not in self._known:
            tables = [t for (_, name), t in self.run.measured.items() if name == of] if of else self._examples.values()
            rows = pd.concat([table[["seed", one]] for table in tables]).drop_duplicates()
            self._known[of] = {str(seed): set(each) for seed, each in rows.groupby("seed")[one]}
        return self._known[of]

    def _values(self, variant: str, metric: str) -> tuple[pd.DataFrame, str]:
        """The rows {seed, value, ...} of a metric, and the column that says which example or document each is of."""
        column = column_of(metric)
        if column is not None and column.outcome not in (None, DOCUMENTS):
            if (table := self._examples.get(variant)) is None:
                raise Missing(f"the {self.name} has no examples of '{variant}'")
            if column.outcome not in table:
                raise Missing(f"the {self.name} has no {metric} of the examples: it was made without that metric")
            return table.assign(value=table[column.outcome]), "example_id"
        if (table := self.run.measured.get((variant, metric))) is None:
            raise Missing(f"the {self.name} has no {metric} of the documents of '{variant}'")
        return table, "document"

    @cached_property
    def _examples(self) -> dict[str, pd.DataFrame]:
        examples = self.run.examples
        if examples is None or examples.empty:
            return {}
        named = examples.assign(example_id=examples["example_id"].astype(str))
        return {str(name): table for name, table in named.groupby("variant", observed=True)}


def mean_over_seeds(values: np.ndarray) -> float:
    """The mean of [seeds, examples]: of the seeds' means where some were not tested on some examples (NaN)."""
    return float(seed_means(values).mean() if np.isnan(values).any() else values.mean())


def matches(pattern: str, variant: str) -> bool:
    """Whether a variant's name fits a pattern; ``*`` also spans slashes."""
    return variant == pattern or fnmatchcase(variant, pattern)
