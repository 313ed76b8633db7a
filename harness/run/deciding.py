"""What a run says of all its variants together: every comparison, and the best of them by each score."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from harness import stats
from harness.evaluate import decisions
from harness.evaluate.decisions import LIKE_THESE, OWN, THESE, Scored
from harness.evaluate.outcomes import aligned, clusters_of
from harness.keys import Key
from harness.results.columns import ALL_SEEDS, difference_of, paired
from harness.results.metric import DOCUMENTS, Column
from harness.results.other_columns import PICKED
from harness.results.scoring import known
from harness.run import evaluating
from harness.run.plan import Plan
from harness.run.stages.setting import documents_of
from harness.store import read_json, write_json


@dataclass(frozen=True)
class Decided:
    """The comparisons of a run."""

    rows: list[dict[str, Any]]
    """Of comparisons.parquet."""
    best: dict[str, dict[str, Any]]
    """By score: the best variant and all that may be it (``decisions.best``)."""
    mcnemar: dict[str, dict[str, float]]
    """By seed and variant: the exact test against the reference."""
    scores: Sequence[str]
    """The suite's, the one that decides first."""

    @cached_property
    def _own(self) -> dict[tuple[str, str, str, str], dict[str, Any]]:
        own = (row for row in self.rows if row["kind"] == OWN)
        return {(row["variant"], row["seed"], row["metric"], row["scope"]): row for row in own}

    def cells(self, variant: str, seed: str) -> dict[str, Any]:
        """What a row of variants.csv has of its comparisons: a verdict where there is one by the suite's score."""
        found: dict[str, Any] = {}
        for name, column in paired().items():
            if row := self._own.get((variant, seed, name, THESE)):
                difference = difference_of(column)
                ends = ("difference", "low", "high")
                found |= dict(zip((difference.name, *difference.bounds), (row[end] for end in ends), strict=True))
        if found:
            found["mcnemar_p"] = self.mcnemar.get(seed, {}).get(variant)
        decisive = self._own.get((variant, seed, self.scores[0], THESE))
        if decisive is None:
            return found
        found |= {"p_adjusted": decisive["p_adjusted"], "verdict": decisive["verdict"]}
        like = self._own.get((variant, seed, self.scores[0], LIKE_THESE))
        return found | {"recipe_verdict": like["verdict"] if like else None}

    def corrected(self, variant: str) -> dict[str, float]:
        """Of the best by the suite's score, this score corrected for the pick; of others nothing."""
        best = self.best.get(self.scores[0])
        if best is None or best["variant"] != variant:
            return {}
        names = (PICKED.name, *PICKED.bounds)
        return dict(zip(names, (best[end] for end in ("corrected", "low", "high")), strict=True))

    @property
    def best_set(self) -> Collection[str]:
        """The variants that may be the best by the suite's score."""
        best = self.best.get(self.scores[0])
        return best["set"] if best else ()


def against_itself(scores: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a reference that has these scores."""
    known = [name for name in paired() if scores.get(name) is not None]
    return {"verdict": "reference"} | dict.fromkeys(_columns(known), 0.0)


def own_columns() -> tuple[str, ...]:
    """The columns of variants.csv that a comparison fills, on one seed or on all."""
    return ("verdict", "recipe_verdict", "reason", "mcnemar_p", "p_adjusted", *_columns(paired()))


def _columns(scores: Iterable[str]) -> list[str]:
    """Of the differences in these scores."""
    differences = (difference_of(paired()[name]) for name in scores)
    return [name for each in differences for name in (each.name, *each.bounds)]


def decide(plan: Plan, scored: Mapping[int, Collection[str]]) -> Decided:
    """Compare all variants that have scores with the references of their pools.

    Args:
        plan: of the run.
        scored: by seed, the variants with scores.
    """
    table = _Table(plan, scored)
    suite = plan.suite.file
    margins = {name: suite.equivalence[name] for name in sorted(suite.equivalence)}
    key = Key.of(
        "decisions",
        code=(__name__, decisions.__name__),
        evaluations={str(seed): {name: plan.variants[seed][name].evaluation_key.digest for name in sorted(scored[seed])}
                     for seed in plan.seeds},
        references={str(seed): table.references([seed]) for seed in plan.seeds},
        pools=table.pools(plan.seeds), margins=margins,
        metrics={name: [column.better, column.outcome, str(column.least), str(column.most)]
                 for name, column in paired().items()},
    )  # fmt: skip
    if not plan.store.has(key):
        rows, best = table.decided(margins)
        record = {"rows": rows, "best": best, "mcnemar": table.mcnemar()}
        with plan.store.write(key) as folder:
            write_json(folder / "decisions.json", record)
    record = read_json(plan.store.read(key) / "decisions.json")
    return Decided(record["rows"], record["best"], record["mcnemar"], suite.scores)


class _Table:
    """The outcomes of all variants of a run, each read once."""

    def __init__(self, plan: Plan, scored: Mapping[int, Collection[str]]) -> None:
        self.plan, self.scored = plan, scored

    def references(self, seeds: Sequence[int]) -> dict[str, str]:
        """Of each variant that has scores on these seeds, its pool's reference if that has them and is another."""
        found = {}
        for name, variant in self.plan.variants[seeds[0]].items():
            reference = self.plan.reference_of(variant).name
            if not all({name, reference} <= set(self.scored[seed]) for seed in seeds):
                continue
            pairs = [(self.plan.variants[seed][name], self.plan.variants[seed][reference]) for seed in seeds]
            if not all(one.is_same_as(other) for one, other in pairs):
                found[name] = reference
        return found

    def pools(self, seeds: Sequence[int]) -> dict[str, str]:
        """Of each other pool's reference, the suite's; both with scores on these seeds."""
        own = self.plan.suite.file.reference
        others = dict.fromkeys(self.plan.reference_of(each).name for each in self.plan.variants[seeds[0]].values())
        return {name: own for name in others
                if name != own and all({name, own} <= set(self.scored[seed]) for seed in seeds)}  # fmt: skip

    def decided(self, margins: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
        """The rows of comparisons.parquet, and the best by each score."""
        rows: list[dict[str, Any]] = []
        best = {}
        every = [(ALL_SEEDS, list(self.plan.seeds)), *((str(seed), [seed]) for seed in self.plan.seeds)]
        for column in paired().values():
            for label, seeds in every:
                if not (scored := self._scored(column, seeds, margins.get(column.name))).tables:
                    continue
                known = scored.tables.keys()
                own, pools = ({name: other for name, other in each.items() if {name, other} <= known}
                              for each in (self.references(seeds), self.pools(seeds)))  # fmt: skip
                scored = replace(scored, same=self._same(own, seeds))
                rows += decisions.comparisons(scored, own, pools, label)
                if label == ALL_SEEDS and (winner := decisions.best(scored)):
                    best[column.name] = winner
        return rows, best

    def _scored(self, column: Column, seeds: Sequence[int], margin: float | str | None) -> Scored:
        names = [name for name in self.plan.variants[seeds[0]] if all(name in self.scored[seed] for seed in seeds)]
        documents = [documents_of(self.plan.setting.of(seed)) for seed in seeds]
        if column.outcome == DOCUMENTS:
            ids, clusters = [], list(documents[0].measured.get(column.name, ()))
        else:
            ids = [each.ids for each in documents]
            clusters = clusters_of([each.clusters for each in documents], ids)
        tables = {}
        for name in names:
            found = [values for seed in seeds if (values := self._values(column, name, seed)) is not None]
            if len(found) == len(seeds):
                tables[name] = aligned(found, ids)
        return Scored(column, tables, clusters, margin=margin)

    def _same(self, references: Mapping[str, str], seeds: Sequence[int]) -> list[str]:
        """The variants that are right just where their reference is, with equal probabilities of labels, if any."""

        def values(name: str) -> np.ndarray:
            tables = [self._read(self.plan.variants[seed][name].evaluation_key)[0] for seed in seeds]
            return np.concatenate([table[["correct", "nll"]].to_numpy(np.float64) for table in tables])

        return [name for name, reference in references.items()
                if np.array_equal(values(name), values(reference), equal_nan=True)]  # fmt: skip

    def _values(self, column: Column, name: str, seed: int) -> np.ndarray | None:
        """A score of each example, or document; None where there is none, or an infinite one."""
        key = self.plan.variants[seed][name].evaluation_key
        if column.outcome == DOCUMENTS:
            return known(self._read(key)[1].get(column.name))
        return known(self._read(key)[0][column.outcome].to_numpy(np.float64))

    def _read(self, key: Key) -> tuple[Any, Mapping[str, np.ndarray]]:
        if key.digest not in self._kept:
            store = self.plan.store
            self._kept[key.digest] = evaluating.read_examples(store, key), evaluating.read_measures(store, key)
        return self._kept[key.digest]

    @cached_property
    def _kept(self) -> dict[str, tuple[Any, Mapping[str, np.ndarray]]]:
        return {}

    def mcnemar(self) -> dict[str, dict[str, float]]:
        """The exact test of each variant and seed."""
        return {str(seed): dict(self._mcnemar(seed)) for seed in self.plan.seeds}

    def _mcnemar(self, seed: int) -> Iterator[tuple[str, float]]:
        right = paired()["accuracy"]
        for name, reference in self.references([seed]).items():
            ours, theirs = (self._values(right, each, seed) for each in (name, reference))
            if ours is not None and theirs is not None:
                yield name, stats.mcnemar_exact(ours, theirs)
