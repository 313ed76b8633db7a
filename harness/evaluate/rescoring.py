"""Scores and comparisons of a finished run, computed again from what it keeps of its examples and documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from harness import stats
from harness.evaluate import decisions
from harness.evaluate.decisions import Scored
from harness.evaluate.outcomes import aligned, clusters_of, own_outcomes, stacked
from harness.evaluate.scores import score_measures
from harness.registry import METRICS
from harness.results.columns import ALL_SEEDS
from harness.results.metric import DOCUMENTS, OUTCOMES, Column, Metric, Outcomes, Value
from harness.results.run import Run
from harness.results.scoring import known
from harness.stats.interval import Interval
from harness.stats.simultaneous import by_cluster


class Rescoring:
    """A run's examples and documents, from which its scores follow."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def score(self, variant: str, seed: str, metric: str) -> Interval | None:
        """A score, with NaN bounds where it has no interval; None of what is no function of examples or documents.

        That is of costs, of scores after recalibration, and of lm-eval's scores of whole tasks.

        Raises:
            KeyError: a variant and seed without examples.
            ValueError: outcomes that no variant has, such as a prediction that is no class.
        """
        if (variant, metric) in self.run.measured:
            return self._measure(variant, seed, metric)
        if metric not in METRICS.all():
            return None
        seeds = [self._outcomes(variant, each) for each in self._seeds(seed)]
        value = _value(METRICS.get(metric), seeds, together=seed == ALL_SEEDS)
        return value if isinstance(value, Interval) else Interval(np.nan if value is None else value, np.nan, np.nan, 0)

    def comparisons(
        self, column: Column, seed: str, references: Mapping[str, str], margin: float | str | None
    ) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """By variant and scope, the rows of comparisons.parquet for one score on one seed, or on all of them.

        There are two of a variant that differs from its reference by less than examples.parquet keeps: whether it is
        the same system in another form cannot be told from there.

        Args:
            column: the score.
            seed: which, or all.
            references: of each variant, the one that it is compared with.
            margin: of equivalence, as the suite says it.
        """
        tables, clusters = self._tables(column, seed)
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        same = [name for name, other in references.items() if self.alike(name, other, seed)]
        for forms in [same, []] if same else [[]]:
            scored = Scored(column, tables, clusters, forms, margin)
            for row in decisions.comparisons(scored, references, {}, seed):
                found.setdefault((row["variant"], row["scope"]), []).append(row)
        return found

    def best(self, column: Column) -> dict[str, Any] | None:
        """The best variant by a score, and all that may be it (``decisions.best``)."""
        return decisions.best(Scored(column, *self._tables(column, ALL_SEEDS)))

    def mcnemar(self, variant: str, other: str, seed: str) -> float:
        """The exact test of equal accuracy of two variants on a seed."""
        ours, theirs = (self._outcomes(name, seed).examples["correct"].to_numpy() for name in (variant, other))
        return stats.mcnemar_exact(ours, theirs)

    def scored(self, column: Column, seed: str) -> list[str]:
        """The variants that have a score on a seed, or on all of them."""
        return list(self._tables(column, seed)[0])

    def _seeds(self, seed: str) -> list[str]:
        return [str(each) for each in self.run.record["seeds"]] if seed == ALL_SEEDS else [seed]

    @cached_property
    def _rows(self) -> dict[tuple[str, str], np.ndarray]:
        """By variant and seed, the rows of examples.parquet, in its order."""
        table = self.run.examples
        if table is None or table.empty:
            return {}
        found = table.groupby(["variant", "seed"], observed=True, sort=False).indices
        return {(str(variant), str(seed)): rows for (variant, seed), rows in found.items()}

    def _outcomes(self, variant: str, seed: str) -> Outcomes:
        if (variant, seed) not in self._read:
            rows = self._rows[variant, seed]
            of = {name: values[rows] for name, values in self._columns.items()}
            labels, ids = np.asarray(of.pop("label")), list(map(str, of.pop("example_id")))
            clusters = list(map(str, of.pop("cluster"))) if "cluster" in of else []
            examples = {name: each.astype(np.float64) if each.dtype.kind == "f" else each for name, each in of.items()}
            classes = int(self.run.record["task"].get("classes") or 0)
            self._read[variant, seed] = Outcomes(pd.DataFrame(examples), labels, classes, clusters, ids)
        return self._read[variant, seed]

    @cached_property
    def _columns(self) -> dict[str, Any]:
        """The columns of examples.parquet that outcomes are made of, as arrays: rows of these are taken sooner."""
        table = self.run.examples
        assert table is not None
        names = (*OUTCOMES, *own_outcomes(), "label", "example_id", "cluster")
        columns = (table[name] for name in names if name in table)
        return {str(each.name): each.to_numpy() if isinstance(each.dtype, np.dtype) else each.array for each in columns}

    @cached_property
    def _read(self) -> dict[tuple[str, str], Outcomes]:
        return {}

    def _measure(self, variant: str, seed: str, metric: str) -> Interval | None:
        names = self._seeds(seed)
        table = self.run.measured[variant, metric]
        documents = [self._documents(each, metric) for each in names]
        values = []
        for name, own in zip(names, documents, strict=True):
            rows = table[table["seed"].astype(str) == name]
            at = {int(document): place for place, document in enumerate(own)}
            whole = np.full(len(own), np.nan)
            whole[[at[int(document)] for document in rows["document"]]] = rows["value"].to_numpy(float)
            values.append({metric: whole})
        ids = [[f"{document:09d}" for document in own] for own in documents] if self.run.splits_differ else ()
        clusters = self._clusters(metric, documents[0])
        found = score_measures(values, ids, {metric: clusters} if clusters else {})
        if metric not in found:
            return None
        low, high = (np.nan if end is None else end for end in (found[metric]["low"], found[metric]["high"]))
        value = found[metric]["value"]
        assert value is not None
        return Interval(value, low, high, int(found[metric]["n"] or 0))

    def _documents(self, seed: str, metric: str) -> np.ndarray:
        """The documents that a metric has of a seed: all that it has of any variant; where each seed has its own
        split, those that the seed was tested on."""
        if not self.run.splits_differ:
            tables = [rows["document"].to_numpy() for (_, name), rows in self.run.measured.items() if name == metric]
            return np.unique(np.concatenate(tables))
        ids = next(self._outcomes(name, of).ids for name, of in self._rows if of == seed)
        return np.array([self.run.places[name] for name in ids])

    def _clusters(self, metric: str, documents: np.ndarray) -> list[str]:
        """Of each of these documents of a metric; empty where each counts as one."""
        table = self.run.document_measures
        if table is None or "cluster" not in table:
            return []
        rows = table[(table["metric"].astype(str) == metric) & table["cluster"].notna()]
        names = dict(zip(rows["document"], rows["cluster"].astype(str), strict=True))
        return [names[document] for document in documents] if names else []

    def _tables(self, column: Column, seed: str) -> tuple[dict[str, np.ndarray], Sequence[str]]:
        """By variant, the values behind a score [seeds, examples or documents], and the cluster of each of these."""
        if (column.name, seed) not in self._known:
            names = list(dict.fromkeys(name for name, _ in self._rows))
            tables = {name: values for name in names if (values := self._table(name, column, seed)) is not None}
            clusters: Sequence[str] = ()
            if tables and column.outcome == DOCUMENTS:
                clusters = self._clusters(column.name, self._documents(seed, column.name))
            elif tables:
                first = [self._outcomes(next(iter(tables)), each) for each in self._seeds(seed)]
                clusters = clusters_of([each.clusters for each in first], [each.ids for each in first])
            self._known[column.name, seed] = tables, clusters
        return self._known[column.name, seed]

    @cached_property
    def _known(self) -> dict[tuple[str, str], tuple[dict[str, np.ndarray], Sequence[str]]]:
        return {}

    def _table(self, name: str, column: Column, seed: str) -> np.ndarray | None:
        found, ids = [], []
        for each in self._seeds(seed):
            if (name, each) not in self._rows:
                return None
            outcomes = self._outcomes(name, each)
            if (values := self._values(name, each, column, outcomes)) is None:
                return None
            found.append(values)
            ids.append(outcomes.ids)
        return aligned(found, ids if column.outcome != DOCUMENTS else ())

    def _values(self, name: str, seed: str, column: Column, outcomes: Outcomes) -> np.ndarray | None:
        if column.outcome != DOCUMENTS:
            own = outcomes.examples
            return known(own[column.outcome].to_numpy(np.float64)) if column.outcome in own else None
        table = self.run.measured.get((name, column.name))
        if table is None:
            return None
        rows = table[table["seed"].astype(str) == seed]
        return known(rows["value"].to_numpy(np.float64)) if len(rows) else None

    def alike(self, name: str, other: str, seed: str) -> bool:
        """Whether two variants say the same of every example, as far as is kept."""

        def said(variant: str) -> np.ndarray:
            tables = [self._outcomes(variant, each).examples for each in self._seeds(seed)]
            return np.concatenate([table[["correct", "nll"]].to_numpy(np.float64) for table in tables])

        return np.array_equal(said(name), said(other), equal_nan=True)


def _value(metric: Metric, seeds: Sequence[Outcomes], *, together: bool) -> Value:
    """A metric of one variant as ``scores.score`` and ``scores.score_over_seeds`` have it, where it has one."""
    column = metric.column
    if column.outcome is not None and column.bounds and len(seeds[0].clusters):
        clusters = clusters_of([each.clusters for each in seeds], [each.ids for each in seeds])
        values = by_cluster(stacked(seeds, str(column.outcome)), clusters)
        return stats.over_seeds(values).within(column.least, column.most)
    if together and metric.over_seeds:
        return metric.over_seeds(seeds)
    values_of = [metric.score(each) for each in seeds]
    if len(values_of) == 1:
        return values_of[0]
    numbers = [value.value if isinstance(value, Interval) else value for value in values_of]
    told = [number for number in numbers if number is not None]
    return sum(told) / len(told) if len(told) == len(numbers) else None
