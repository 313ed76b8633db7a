"""The tables of a run, from the artefacts of its stages."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import pandas as pd
import torch

from harness.cost import latency
from harness.cost.choosing import cells, why_not_here
from harness.cost.cost import Context, Cost
from harness.display.lines import text_cell
from harness.evaluate import by_stage, outcomes
from harness.pools.source import MemberPlan
from harness.registry import COSTS
from harness.results.columns import (
    ALL_SEEDS,
    INTERMEDIATE_COLUMNS,
    MEASURE_COLUMNS,
    NO_REFERENCE,
    example_columns,
    paired,
)
from harness.results.metric import Column
from harness.results.other_columns import BITS, BUILDING, CALIBRATED, COUNTED
from harness.results.serving import FLOPS, own_costs
from harness.run import capacity, evaluating, infinite, lacking
from harness.run.deciding import Decided, against_itself, decide, own_columns
from harness.run.graph import costs_of, measured, measures
from harness.run.plan import Plan
from harness.run.stages.build import Build
from harness.run.stages.score import Score, Summarise
from harness.run.stages.setting import documents_of
from harness.run.stages.variant import VariantPlan, built
from harness.run.told import bounded
from harness.types import Status


class Tables:
    """The rows of variants.csv, examples.parquet and measures.parquet, from the artefacts of a run."""

    def __init__(self, plan: Plan, errors: Mapping[str, str]) -> None:
        """``errors``: why stages failed, by their labels."""
        self.plan, self.store, self.errors = plan, plan.store, errors
        self.details: dict[str, dict[str, Any]] = {}
        self.warnings: list[str] = []
        """Of costs whose columns cannot all be derived, and of scores that are infinite."""
        self.measures: list[dict[str, Any]] = []
        """Rows of scores.parquet that are no columns of variants.csv."""

    @cached_property
    def decided(self) -> Decided:
        """The comparisons of all variants that have scores."""
        variants = self.plan.variants.items()
        scored = {seed: [v.name for v in own.values() if self._state(v)[0] == "ok"] for seed, own in variants}
        return decide(self.plan, scored)

    def rows(self) -> list[dict[str, Any]]:
        per_seed = {seed: [self._row(v) for v in self.plan.variants[seed].values()] for seed in self.plan.seeds}
        summary = [self._summary(list(rows)) for rows in zip(*per_seed.values(), strict=True)]
        score = paired()[self.plan.suite.file.scores[0]]
        for group in (*per_seed.values(), summary):
            _mark_pareto(group, score, [self.serving_cost(row) for row in group])
        for row in summary:
            if row["status"] == "ok" and self.plan.compares:
                row["best_set"] = row["variant"] in self.decided.best_set
                row |= self.decided.corrected(row["variant"])
        return [_in_lines(row) for group in (summary, *per_seed.values()) for row in group]

    @property
    def serving(self) -> dict[str, str | None]:
        """The field of run.json: what budgets go by where nothing is run is the first cost that the reference has."""
        if (why := self.plan.setting.kind.why_no_costs) is None:
            return {"cost": FLOPS, "why_no_costs": None}
        reference = self.plan.suite.file.reference
        known = own_costs({row["metric"] for row in self.measures if row["variant"] == reference})
        return {"cost": known[0] if known else None, "why_no_costs": why}

    def serving_cost(self, row: Mapping[str, Any]) -> float | None:
        """What a row of the table takes for an example, as budgets go by it; None where it is not known."""
        cost = self.serving["cost"]
        if cost in (FLOPS, None) or not row:
            return row.get(FLOPS)
        of = (row["variant"], row["seed"], cost)
        return next((m["value"] for m in self.measures if (m["variant"], m["seed"], m["metric"]) == of), None)

    def _row(self, plan: VariantPlan) -> dict[str, Any]:
        row: dict[str, Any] = {
            "variant": plan.name,
            "family": plan.declared.family,
            "method": plan.method,
            "pool": plan.pool.name,
            "params": json.dumps(dict(plan.parameters), sort_keys=True),
            "members": len(plan.digests),
            "reference": self.plan.reference_of(plan).name if self.plan.compares else None,
            "seed": str(plan.seed),
            "members_train_seconds": sum(member.spent(self.store) for member in _trainings(plan)),
            **self._sources(),
        }
        status, reason = self._state(plan)
        if status != "ok":
            return row | {"status": status, "reason": reason, "verdict": status}
        record = built(self.store, plan)
        assert record is not None
        evaluation = evaluating.read_record(self.store, plan.evaluation_key)
        seen = {name: evaluation[name] for name in evaluating.TOLD if evaluation.get(name)}
        told = bounded(record["details"] | seen, len(self.plan.seeds) * len(self.plan.variants[plan.seed]))
        self.details.setdefault(plan.name, {})[str(plan.seed)] = told
        row |= {"status": "ok", "build_seconds": record["build_seconds"]}
        row |= {key: evaluation.get(key) for key in _names(*COUNTED, *CALIBRATED)}
        row |= self._scores(plan.name, str(plan.seed), Score(self.plan.setting.of(plan.seed), plan))
        row |= self._compared([plan], row)
        return row | self._measured(plan, row)

    def _compared(self, plans: Sequence[VariantPlan], row: Mapping[str, Any]) -> dict[str, Any]:
        """The comparison with the reference, or why there is none, and the tasks that it does not apply to.

        The variant keeps its own scores whatever it lacks.
        """
        cells = self._comparison(plans, row)
        reasons = [each for each in (cells.get("reason"), lacking.why(self.plan.setting, plans)) if each]
        return cells | ({"reason": "; ".join(reasons)} if reasons else {})

    def _comparison(self, plans: Sequence[VariantPlan], row: Mapping[str, Any]) -> dict[str, Any]:
        """Of a candidate, which has no reference, a rule has to find nothing, not a pass."""
        if not self.plan.compares:
            return {"verdict": NO_REFERENCE}
        if all(plan.is_same_as(self.plan.reference_of(plan)) for plan in plans):
            unscored = self._why_unscored(plans, ())
            return against_itself(row) | ({"reason": unscored} if unscored else {})
        cells = self.decided.cells(plans[0].name, row["seed"])
        if "verdict" in cells:
            return cells
        references = [self.plan.reference_of(plan) for plan in plans]
        reason = next(filter(None, map(self._why_no_reference, references)), None)
        reason = reason or self._why_unscored(plans, references) or "one example says nothing of others"
        return cells | {"verdict": NO_REFERENCE, "reason": f"not compared: {reason}"}

    def _why_unscored(self, plans: Sequence[VariantPlan], references: Sequence[VariantPlan]) -> str | None:
        """Why a variant with results, or its reference, does not have the score that verdicts go by; None: it has."""
        score = paired()[self.plan.suite.file.scores[0]]
        for whose, name, each in (("its", "it", plans), ("the reference's", "the reference", references)):
            if not all(self._is_scored(plan, score) for plan in each):
                why = infinite.why(self.plan.setting, each, score)
                return f"{whose} {why}" if why else f"the run has no {score.name} of {name}"
        return None

    def _is_scored(self, plan: VariantPlan, score: Column) -> bool:
        record = Score(self.plan.setting.of(plan.seed), plan).read()
        assert record is not None
        return score.name in record["measures"] or record.get(score.name) is not None

    def _why_no_reference(self, reference: VariantPlan) -> str | None:
        """Why a reference has no scores, where it has none."""
        status, reason = self._state(reference)
        place = f" on seed {reference.seed}" if len(self.plan.seeds) > 1 else ""
        words = {"not_applicable": "does not apply", "failed": "failed"}
        return None if status == "ok" else f"the reference {reference.name} {words[status]}{place}: {reason}"

    def _state(self, plan: VariantPlan) -> tuple[Status, str]:
        """A variant's status on its seed, and the reason where it is not ok."""
        record = built(self.store, plan)
        if record and record["status"] == "not_applicable":
            return "not_applicable", record["reason"]
        needed = (stage(self.plan.setting.of(plan.seed), plan).label for stage in (Build, Score))
        broken = next((self.errors[label] for label in needed if label in self.errors), None)
        return ("ok", "") if broken is None else ("failed", broken)

    def _scores(self, variant: str, seed: str, stage: Score | Summarise) -> dict[str, Any]:
        """The scores of a row; per-task measures are kept apart, but bits per byte over all tasks is a column."""
        record = stage.read()
        assert record is not None
        measures = record.pop("measures")
        self.measures += [{"variant": variant, "seed": seed, "metric": m, **v} for m, v in measures.items() if "/" in m]
        if bits := measures.get(BITS.name):
            record |= dict(zip((BITS.name, *BITS.bounds), (bits["value"], bits["low"], bits["high"]), strict=True))
        return record

    def _measured(self, plan: VariantPlan, row: Mapping[str, Any]) -> dict[str, Any]:
        """The costs, which only the first seed has; where one was not measured, its source says why."""
        values: dict[str, Any] = {}
        for cost in COSTS:
            figures = measured(self.plan, plan, cost.name).read(cost.name)
            if figures is not None and self.plan.suite.file.cost.asks(cost.name):
                values |= cells(cost, figures, self._context(cost, plan, row), partial(self._warn, plan))
            if cost.source and cost.source not in values:
                reason = self._why_not_here(cost) or self._why_not_measured(cost, plan)
                values[cost.source] = f"unavailable: {reason}"
        return values

    def _warn(self, plan: VariantPlan, problem: str) -> None:
        self.warnings.append(f"{plan.name}, seed {plan.seed}: {problem}")

    def _context(self, cost: Cost, plan: VariantPlan, row: Mapping[str, Any]) -> Context:
        reference = self.plan.reference(plan.seed)
        return Context(
            device=torch.device(self.plan.setting.device),
            row=row,
            scores_test=self.plan.setting.kind.inputs_are_scored,
            is_reference=plan.is_same_as(reference),
            reference=measured(self.plan, reference, cost.name, beside=plan).read(cost.name),
            price_per_gpu_hour=self.plan.suite.file.cost.price_per_gpu_hour,
            forecast=lambda: capacity.predicted(self.plan, plan, row["params_stored"]),
        )

    def _sources(self) -> dict[str, str]:
        """Of the costs that the run measures of no variant, why."""
        reasons = {cost.source: self._why_not_here(cost) for cost in COSTS if cost.source}
        return {source: f"unavailable: {reason}" for source, reason in reasons.items() if reason}

    def _why_not_here(self, cost: Cost) -> str | None:
        if reason := self.plan.setting.kind.why_no_costs:
            return reason
        return why_not_here(cost, self.plan.suite.file.cost.asks, self.plan.meters)

    def _why_not_measured(self, cost: Cost, plan: VariantPlan) -> str:
        """Why a variant lacks a cost that the run measures."""
        if cost.beside_reference and (reason := self._why_no_reference(self.plan.reference(plan.seed))):
            return reason
        stages = [stage for stage in measures(self.plan, plan, costs_of(self.plan)) if cost.name in stage.costs]
        failures = (self.errors.get(stage.label) for stage in stages)
        return next(filter(None, failures), "measured on the first seed only")

    def _summary(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The row of all seeds: costs are those of the first."""
        first = rows[0]
        summary = {**first, "seed": ALL_SEEDS}
        plans = self.plan.over_seeds(first["variant"])
        scored = [plan for plan, row in zip(plans, rows, strict=True) if row["status"] == "ok"]
        self.warnings += [f"{first['variant']}: {words}" for words in infinite.warnings(self.plan.setting, scored)]
        stage = Summarise(self.plan.setting, plans)
        if reason := self.errors.get(stage.label):
            rows = [{**row, "status": "failed", "reason": reason} if row["status"] == "ok" else row for row in rows]
        not_ok = sorted((row for row in rows if row["status"] != "ok"), key=lambda row: row["status"] != "failed")
        if broken := next(iter(not_ok), None):  # a failure first: a method that does not apply is none
            named = ("variant", "family", "method", "pool", "reference", "params", "members")
            shown = {key: first[key] for key in named}
            reason = broken["reason"] if len(rows) == 1 else f"seed {broken['seed']}: {broken['reason']}"
            states = {"status": broken["status"], "reason": reason, "verdict": broken["status"]}
            sources = {cost.source: first.get(cost.source) for cost in COSTS if cost.source}
            return {**shown, "seed": ALL_SEEDS, **states, **sources}
        means = _names(*CALIBRATED, *BUILDING)
        for key in means:
            known = [row[key] for row in rows if row[key] is not None]
            summary[key] = sum(known) / len(known) if len(known) == len(rows) else None
        for column in own_columns():
            summary.pop(column, None)
        summary |= self._scores(first["variant"], ALL_SEEDS, stage)
        return summary | self._compared(plans, summary)

    def examples(self) -> pd.DataFrame:
        """examples.parquet of every variant that is ok."""
        tables = []
        for seed in self.plan.seeds:
            documents = documents_of(self.plan.setting.of(seed))
            for name, plan in self.plan.variants[seed].items():
                if str(seed) in self.details.get(name, {}):
                    table = evaluating.read_examples(self.store, plan.evaluation_key)
                    if documents.clusters:
                        table.insert(0, "cluster", list(documents.clusters))
                    table.insert(0, "label", documents.labels.numpy())
                    table.insert(0, "task", list(documents.tasks))
                    table.insert(0, "example_id", list(documents.ids))
                    table.insert(0, "seed", seed)
                    table.insert(0, "variant", name)
                    tables.append(table)
        if not tables:
            return pd.DataFrame(columns=list(example_columns()))
        whole = pd.concat(tables, ignore_index=True)
        whole = whole[[name for name in example_columns() if name in whole]]
        kinds = {"variant": "category", "example_id": "category", "task": "category"}
        losses = [name for name in whole.select_dtypes("float64") if name != "confidence"]
        return whole.astype({**kinds, **dict.fromkeys(losses, "float32")})

    def intermediate(self) -> pd.DataFrame:
        """intermediate.parquet of every pipeline that is ok; empty where there is none."""
        tables = []
        for seed in self.plan.seeds:
            for name, plan in self.plan.variants[seed].items():
                if str(seed) in self.details.get(name, {}):
                    table = evaluating.read_intermediate(self.store, plan.evaluation_key)
                    if table is not None:
                        tables.append(table.assign(variant=name, seed=seed)[list(INTERMEDIATE_COLUMNS)])
        if not tables:
            return pd.DataFrame(columns=list(INTERMEDIATE_COLUMNS))
        whole = pd.concat(tables, ignore_index=True)
        return whole.astype(dict.fromkeys(("variant", "example_id", "name", "kind"), "category"))

    def scored(self) -> dict[str, list[tuple[str, str]]]:
        """By seed, the variants whose examples are known, each with the digest of its evaluation."""
        return {
            str(seed): [(name, plan.evaluation_key.digest) for name, plan in self.plan.variants[seed].items()
                        if str(seed) in self.details.get(name, {})]
            for seed in self.plan.seeds
        }  # fmt: skip

    def document_measures(self) -> pd.DataFrame:
        """measures.parquet; empty where the kind of task has none."""
        tables = []
        shared = self.plan.suite.file.split == "shared"
        clusters = self._clusters_of_measures() if shared else {}
        places = outcomes.positions([documents_of(self.plan.setting.of(seed)).ids for seed in self.plan.seeds])
        for seed, of_seed in zip(self.plan.seeds, places, strict=True):
            for name, plan in self.plan.variants[seed].items():
                if str(seed) in self.details.get(name, {}):
                    for metric, values in evaluating.read_measures(self.store, plan.evaluation_key).items():
                        # A measure may be of one task's documents, or of passages that are none of the documents.
                        at = of_seed[: len(values)] if not shared else range(len(values))
                        row = {"variant": name, "seed": seed, "metric": metric, "document": at}
                        table = pd.DataFrame({**row, "value": values, "cluster": clusters.get(metric)})
                        tables.append(table.dropna(subset="value"))
        if not tables:
            return pd.DataFrame(columns=list(MEASURE_COLUMNS))
        whole = pd.concat(tables, ignore_index=True)[list(MEASURE_COLUMNS)]
        if whole["cluster"].isna().all():
            return whole.drop(columns="cluster").astype({"variant": "category", "metric": "category"})
        return whole.astype({"variant": "category", "metric": "category", "cluster": "category"})

    def _clusters_of_measures(self) -> dict[str, list[str]]:
        """By measure, the clusters of its documents, where several of these count as one."""
        documents = documents_of(self.plan.setting)
        found = {name: list(of) for name, of in documents.measured.items() if of}
        if documents.clusters:
            scored = [self.plan.variants[int(seed)][name] for seed, of in self.scored().items() for name, _ in of]
            keys = [plan.evaluation_key for plan in scored]
            names = {name for key in keys for name in by_stage.names_in(evaluating.read_measures(self.store, key))}
            found |= {name: list(documents.clusters) for name in names}
        return found


def _trainings(plan: VariantPlan) -> list[MemberPlan]:
    """What made the members that a variant was given, each once, and their base."""
    pool = plan.pool
    given = range(len(pool.by_position)) if plan.positions is None else plan.positions
    return [*([pool.base] if pool.base else []), *pool.sources(given)]


def _mark_pareto(rows: list[dict[str, Any]], score: Column, costs: Sequence[float | None]) -> None:
    """The score against the cost of serving: both are the same at every run, so the mark is too."""
    points: dict[int, tuple[float, float]] = {}
    for place, (row, cost) in enumerate(zip(rows, costs, strict=True)):
        if row["status"] == "ok":
            row["pareto"] = False
            if row.get(score.name) is not None and cost is not None:
                points[place] = score.sign * row[score.name], -cost
    highest, front = -math.inf, set()
    for here in sorted(set(points.values()), key=lambda point: (-point[1], -point[0])):  # the cheapest first
        if here[0] > highest:
            highest = here[0]
            front.add(here)
    for place, here in points.items():
        rows[place]["pareto"] = here in front


def noise(plan: Plan) -> dict[str, Any] | None:
    """The reference timed against itself: what a latency ratio means nothing within. None where it was not timed."""
    if not plan.suite.file.cost.asks("latency"):
        return None
    return latency.noise_record(measured(plan, plan.reference(plan.seeds[0]), "latency").read("latency"))


def _in_lines(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose reasons, which may be others' words, are lines of bounded length."""
    said = {"reason", *(cost.source for cost in COSTS if cost.source)}
    return {key: text_cell(value) if key in said and isinstance(value, str) else value for key, value in row.items()}


def _names(*columns: Column) -> list[str]:
    return [column.name for column in columns]
