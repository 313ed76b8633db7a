"""The tables of a run, from the artefacts of its stages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import pandas as pd

from harness.cost import latency
from harness.evaluate import scores
from harness.pools.trained import Source, training_log
from harness.results.columns import (
    ALL_SEEDS,
    EXAMPLE_COLUMNS,
    MEASURE_COLUMNS,
    NO_REFERENCE,
)
from harness.run import capacity, measuring
from harness.run.graph import reference_measure
from harness.run.plan import Plan
from harness.run.stages.build import Build
from harness.run.stages.evaluate import evaluation_of, examples_of, measures_of
from harness.run.stages.measure import Measure
from harness.run.stages.score import Compare, CompareSeeds, Score, Summarise
from harness.run.stages.setting import documents_of
from harness.run.stages.variant import VariantPlan, built
from harness.types import Status

COUNTED = ("params_stored", "params_active", "flops_per_example")
CALIBRATED = ("temperature", "nll_calibrated", "ece_calibrated")


class Tables:
    """The rows of variants.csv, examples.parquet and measures.parquet, from the artefacts of a run."""

    def __init__(self, plan: Plan, errors: Mapping[str, str]) -> None:
        """``errors``: why stages failed, by their labels."""
        self.plan, self.store, self.errors = plan, plan.store, errors
        self.details: dict[str, dict[str, Any]] = {}
        self.measures: list[dict[str, Any]] = []
        """Rows of scores.parquet that are no columns of variants.csv."""

    def rows(self) -> list[dict[str, Any]]:
        per_seed = {seed: [self._row(v) for v in self.plan.variants[seed].values()] for seed in self.plan.seeds}
        summary = [self._summary(list(rows)) for rows in zip(*per_seed.values(), strict=True)]
        for group in (*per_seed.values(), summary):
            _mark_pareto(group)
        return [row for group in (summary, *per_seed.values()) for row in group]

    def _row(self, plan: VariantPlan) -> dict[str, Any]:
        row: dict[str, Any] = {
            "variant": plan.name,
            "family": plan.declared.family,
            "method": plan.method,
            "pool": plan.pool.name,
            "params": json.dumps(dict(plan.parameters), sort_keys=True),
            "members": len(plan.digests),
            "seed": str(plan.seed),
            "members_train_seconds": sum(training_log(source, self.store).seconds for source in _trainings(plan)),
            "energy_source": f"unavailable: {self._why_no_energy(plan)}",
        }
        status, reason = self._state(plan)
        if status != "ok":
            return row | {"status": status, "reason": reason, "verdict": status}
        record = built(self.store, plan)
        assert record is not None
        self.details.setdefault(plan.name, {})[str(plan.seed)] = record["details"]
        evaluation = evaluation_of(self.store, plan)
        reference = self.plan.reference(plan.seed)
        row |= {"status": "ok", "build_seconds": record["build_seconds"]}
        row |= {key: evaluation.get(key) for key in (*COUNTED, *CALIBRATED)}
        row |= self._scores(plan.name, str(plan.seed), Score(self.plan.setting, plan))
        if plan.is_same_as(reference):
            row |= scores.AGAINST_ITSELF
        else:
            row |= self._comparison(Compare(self.plan.setting, plan, reference), [plan.seed])
        row |= self._measured(plan, reference, row["accuracy"], row["params_stored"])
        return row

    def _comparison(self, stage: Compare | CompareSeeds, seeds: Sequence[int]) -> dict[str, Any]:
        """The comparison with the reference, or why there is none: the variant keeps its own scores."""
        if record := stage.read():
            return record
        stages = [stage, *stage.needs()]
        failure = next((self.errors[each.label] for each in stages if each.label in self.errors), "")
        reasons = (self._why_no_reference(seed) for seed in seeds)
        reason = next(filter(None, reasons), failure)
        return {"verdict": NO_REFERENCE, "reason": f"not compared: {reason}"}

    def _why_no_reference(self, seed: int) -> str | None:
        """Why the reference has no scores on a seed, where it has none."""
        reference = self.plan.reference(seed)
        status, reason = self._state(reference)
        place = f" on seed {seed}" if len(self.plan.seeds) > 1 else ""
        words = {"not_applicable": "does not apply", "failed": "failed"}
        return None if status == "ok" else f"the reference {reference.name} {words[status]}{place}: {reason}"

    def _state(self, plan: VariantPlan) -> tuple[Status, str]:
        """A variant's status on its seed, and the reason where it is not ok."""
        record = built(self.store, plan)
        if record and record["status"] == "not_applicable":
            return "not_applicable", record["reason"]
        needed = (stage(self.plan.setting, plan).label for stage in (Build, Score))
        broken = next((self.errors[label] for label in needed if label in self.errors), None)
        return ("ok", "") if broken is None else ("failed", broken)

    def _scores(self, variant: str, seed: str, stage: Score | Summarise) -> dict[str, Any]:
        """The scores of a row; per-task measures are kept apart, but bits per byte over all tasks is a column."""
        record = stage.read()
        assert record is not None
        measures = record.pop("measures")
        self.measures += [{"variant": variant, "seed": seed, "metric": m, **v} for m, v in measures.items() if "/" in m]
        if bits := measures.get("bits_per_byte"):
            record |= {"bits_per_byte": bits["value"]}
            record |= {f"bits_per_byte_{end}": bits[end] for end in ("low", "high")}
        return record

    def _measured(self, plan: VariantPlan, reference: VariantPlan, accuracy: float, stored: float) -> dict[str, Any]:
        """Times, memory and energy, which only the first seed has; a measurement that failed leaves its cells empty."""
        found: dict[str, Any] = {}
        stage = Measure(self.plan.setting, plan, reference, get_args(measuring.Cost))
        for cost in stage.costs:
            found |= stage.read(cost) or {}
        if "latency_ratio_p50" in found:
            found["latency_verdict"] = self._latency_verdict(plan, reference, found)
            found["money_per_million_examples"] = self._money(found["throughput_per_s"])
        joules = found.get("energy_j_per_example")
        if joules is not None and accuracy and self.plan.setting.task.kind == "images":
            found["energy_j_per_correct"] = joules / accuracy
        if "working_memory_bytes" in found:
            found["predicted_memory_bytes"] = capacity.predicted(self.plan, plan, stored)
        if "memory_source" not in found:
            asked = self.plan.suite.file.cost.memory
            why = "measured on the first seed only" if asked else "the suite does not ask for it"
            reason = self.errors.get(stage.label, why)
            found["memory_source"] = f"unavailable: {reason}"
        return found

    def _latency_verdict(self, plan: VariantPlan, reference: VariantPlan, found: Mapping[str, Any]) -> str:
        if plan.is_same_as(reference):
            return "reference"
        against_itself = noise(self.plan)
        if against_itself is None:
            return "unclear"
        ends = against_itself["low"], against_itself["high"]
        return latency.verdict(found["latency_ratio_low"], found["latency_ratio_high"], ends)

    def _why_no_energy(self, plan: VariantPlan) -> str:
        if not self.plan.suite.file.cost.energy:
            return "the suite does not ask for it"
        if reason := measuring.why_no_energy(self.plan.setting):
            return reason
        stage = Measure(self.plan.setting, plan, self.plan.reference(plan.seed), ())
        failure = self.errors.get(stage.label)
        return failure or "measured on the first seed only"

    def _money(self, per_second: float) -> float | None:
        """The price of a million examples; None without a price, or without the GPU that it is for."""
        price = self.plan.suite.file.cost.price_per_gpu_hour
        if price is None or not self.plan.setting.device.startswith("cuda"):
            return None
        return price / 3600 / per_second * 1e6

    def _summary(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The row of all seeds: costs are those of the first."""
        first = rows[0]
        summary = {**first, "seed": ALL_SEEDS}
        plans = self.plan.over_seeds(first["variant"])
        stage = Summarise(self.plan.setting, plans)
        if reason := self.errors.get(stage.label):
            rows = [{**row, "status": "failed", "reason": reason} if row["status"] == "ok" else row for row in rows]
        not_ok = sorted((row for row in rows if row["status"] != "ok"), key=lambda row: row["status"] != "failed")
        if broken := next(iter(not_ok), None):  # a failure first: a method that does not apply is none
            kept = {key: first[key] for key in ("variant", "family", "method", "pool", "params", "members")}
            reason = broken["reason"] if len(rows) == 1 else f"seed {broken['seed']}: {broken['reason']}"
            states = {"status": broken["status"], "reason": reason, "verdict": broken["status"]}
            return {**kept, "seed": ALL_SEEDS, **states, "energy_source": first["energy_source"]}
        means = ("adaptive_ece", "aurc", "macro_f1", *CALIBRATED, "build_seconds", "members_train_seconds")
        summary |= {key: sum(row[key] for row in rows) / len(rows) for key in means if first[key] is not None}
        references = tuple(self.plan.reference(seed) for seed in self.plan.seeds)
        for column in ("mcnemar_p", "reason", *scores.AGAINST_ITSELF):
            summary.pop(column, None)
        summary |= self._scores(first["variant"], ALL_SEEDS, stage)
        if all(plan.is_same_as(reference) for plan, reference in zip(plans, references, strict=True)):
            return summary | scores.AGAINST_ITSELF
        return summary | self._comparison(CompareSeeds(self.plan.setting, plans, references), self.plan.seeds)

    def examples(self) -> pd.DataFrame:
        """examples.parquet of every variant that is ok."""
        tables = []
        documents = documents_of(self.plan.setting)
        for seed in self.plan.seeds:
            for name, plan in self.plan.variants[seed].items():
                if str(seed) in self.details.get(name, {}):
                    table = examples_of(self.store, plan)
                    table.insert(0, "label", documents.labels.numpy())
                    table.insert(0, "task", list(documents.tasks))
                    table.insert(0, "example_id", list(documents.ids))
                    table.insert(0, "seed", seed)
                    table.insert(0, "variant", name)
                    tables.append(table)
        if not tables:
            return pd.DataFrame(columns=list(EXAMPLE_COLUMNS))
        whole = pd.concat(tables, ignore_index=True)[list(EXAMPLE_COLUMNS)]
        kinds = {"variant": "category", "example_id": "category", "task": "category"}
        return whole.astype({**kinds, "nll": "float32", "brier": "float32"})

    def document_measures(self) -> list[pd.DataFrame]:
        """The rows of measures.parquet, a table for each variant, seed and metric."""
        tables = []
        for seed in self.plan.seeds:
            for name, plan in self.plan.variants[seed].items():
                if str(seed) in self.details.get(name, {}):
                    for metric, values in measures_of(self.store, plan).items():
                        row = {"variant": name, "seed": seed, "metric": metric, "document": range(len(values))}
                        table = pd.DataFrame({**row, "value": values})[list(MEASURE_COLUMNS)]
                        tables.append(table.dropna(subset="value"))
        return tables


def _trainings(plan: VariantPlan) -> list[Source]:
    """The training runs behind the members that a variant was given, and their base."""
    pool = plan.pool
    if plan.positions is None or pool.kind == "checkpoints":
        members = list(pool.members)
    else:
        members = [pool.members[i] for i in plan.positions]
    return [*([pool.base] if pool.base else []), *members]


def _mark_pareto(rows: list[dict[str, Any]]) -> None:
    """Accuracy against FLOPs per example: both are the same at every run, so the mark is too."""
    for row in rows:
        if row["status"] == "ok":
            row["pareto"] = False
    ok = [row for row in rows if row["status"] == "ok" and row["flops_per_example"] is not None]
    for row in ok:
        here = (row["accuracy"], -row["flops_per_example"])
        points = [(other["accuracy"], -other["flops_per_example"]) for other in ok]
        row["pareto"] = not any(p != here and p[0] >= here[0] and p[1] >= here[1] for p in points)


def noise(plan: Plan) -> dict[str, Any] | None:
    """The reference timed against itself: what a latency ratio means nothing within. None where it was not timed."""
    found = reference_measure(plan).read("latency")
    if not found:
        return None
    names = {
        "latency_ratio": "latency_ratio_p50",
        "low": "latency_ratio_low",
        "high": "latency_ratio_high",
        "throughput_ratio": "throughput_ratio",
        "throughput_low": "throughput_ratio_low",
        "throughput_high": "throughput_ratio_high",
        "rounds": "rounds",
        "clock": "clock",
    }
    conditions = ("batch", "threads", "cores", "sm_mhz", "memory_mhz", "measured")
    return {name: found[of] for name, of in names.items()} | {key: found[key] for key in conditions if key in found}
