"""From the artefacts of a run to the files of its results folder (``harness.results.run`` says what they hold)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from harness import environment
from harness.cost import latency
from harness.evaluate import correlate, scores
from harness.evaluate.predictions import predictions_key
from harness.pools.trained import PoolPlan, Source, notes_of, training_log
from harness.registry import METHODS
from harness.results.columns import (
    ALL_SEEDS,
    CORRELATION_COLUMNS,
    EXAMPLE_COLUMNS,
    MEASURE_COLUMNS,
    METRICS,
    NO_REFERENCE,
    SCHEMA_VERSION,
    VARIANT_COLUMNS,
)
from harness.run import capacity, jobs, measuring
from harness.run.jobs import VariantPlan
from harness.run.planning import Plan
from harness.store import Key, Store, read_json, write_json
from harness.types import Status

COUNTED = ("params_stored", "params_active", "flops_per_example")
CALIBRATED = ("temperature", "nll_calibrated", "ece_calibrated")


def write_results(
    folder: Path, plan: Plan, store: Store, errors: Mapping[str, str], run_record: Mapping[str, Any]
) -> None:
    """Write every file of a run's folder that ``harness.results.run`` describes.

    Args:
        folder: the run's folder, existing.
        plan: what was run.
        store: where the artefacts are.
        errors: job name -> why it failed.
        run_record: the fields of run.json that only the runner knows.
    """
    table = _Table(plan, store, errors)
    rows = table.rows()
    variants = pd.DataFrame(rows, columns=list(VARIANT_COLUMNS))
    variants.to_csv(folder / "variants.csv", index=False)
    write_json(folder / "details.json", table.details)
    source = "lm-eval" if plan.setting.task.kind == "text" else "test split"
    _tidy(variants, table.measures, source).to_parquet(folder / "scores.parquet", index=False)
    table.examples().to_parquet(folder / "examples.parquet", index=False)
    if measures := table.document_measures():
        pd.concat(measures, ignore_index=True).to_parquet(folder / "measures.parquet", index=False)
    warnings = _write_study(folder, plan, store, errors)
    write_json(folder / "run.json", _record(plan, store, rows, table.details, warnings, run_record))


class _Table:
    """The rows of variants.csv."""

    def __init__(self, plan: Plan, store: Store, errors: Mapping[str, str]) -> None:
        self.plan, self.store, self.errors = plan, store, errors
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
            "family": METHODS.get(plan.method).family,
            "method": plan.method,
            "pool": plan.pool.name,
            "params": json.dumps(dict(plan.parameters), sort_keys=True),
            "members": len(plan.digests),
            "seed": str(plan.seed),
            "members_train_seconds": sum(_seconds(t, self.store) for t in _trainings(plan)),
            "energy_source": f"unavailable: {self._why_no_energy(plan)}",
        }
        status, reason = self._state(plan)
        if status != "ok":
            return row | {"status": status, "reason": reason, "verdict": status}
        built = jobs.built(self.store, plan)
        assert built is not None
        evaluation = read_json(self.store.path(plan.evaluation_key) / "evaluation.json")
        stages = {"stages": evaluation["stages"]} if "stages" in evaluation else {}
        self.details.setdefault(plan.name, {})[str(plan.seed)] = {**built["details"], **stages}
        reference = self.plan.reference(plan.seed)
        row |= {"status": "ok", "build_seconds": built["build_seconds"]}
        row |= {key: evaluation.get(key) for key in (*COUNTED, *CALIBRATED)}
        row |= self._scores(plan.name, str(plan.seed), plan.score_key, "score")
        if plan.build_key == reference.build_key:
            row |= scores.AGAINST_ITSELF
        else:
            row |= self._comparison(plan.comparison_key(reference), plan.name, [plan.seed])
        row |= self._measured(plan, reference, row["accuracy"], row["params_stored"])
        return row

    def _comparison(self, key: Key, variant: str, seeds: Sequence[int]) -> dict[str, Any]:
        """The comparison with the reference, or why there is none: the variant keeps its own scores."""
        if self.store.has(key):
            found: dict[str, Any] = read_json(self.store.path(key) / "comparison.json")
            return found
        names = [f"seed {seed}: compare {variant}" for seed in seeds] + [f"comparison of {variant}"]
        failure = next((self.errors[name] for name in names if name in self.errors), "")
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
        built = jobs.built(self.store, plan)
        if built and built["status"] == "not_applicable":
            return "not_applicable", built["reason"]
        needed = [f"seed {plan.seed}: {what} {plan.name}" for what in ("build", "score")]
        broken = next((self.errors[name] for name in needed if name in self.errors), None)
        return ("ok", "") if broken is None else ("failed", broken)

    def _scores(self, variant: str, seed: str, key: Key, name: str) -> dict[str, Any]:
        """The scores of a row; per-task measures are kept apart, but bits per byte over all tasks is a column."""
        found: dict[str, Any] = read_json(self.store.path(key) / f"{name}.json")
        measures = found.pop("measures")
        self.measures += [{"variant": variant, "seed": seed, "metric": m, **v} for m, v in measures.items() if "/" in m]
        if bits := measures.get("bits_per_byte"):
            found |= {"bits_per_byte": bits["value"]}
            found |= {f"bits_per_byte_{end}": bits[end] for end in ("low", "high")}
        return found

    def _measured(self, plan: VariantPlan, reference: VariantPlan, accuracy: float, stored: float) -> dict[str, Any]:
        """Times, memory and energy, which only the first seed has; a measurement that failed leaves its cells empty."""
        found: dict[str, Any] = {}
        for cost in get_args(measuring.Cost):
            if self.store.has(key := measuring.key(cost, plan, reference)):
                found |= read_json(self.store.path(key) / f"{cost}.json")
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
            reason = self.errors.get(f"seed {plan.seed}: measure {plan.name}", why)
            found["memory_source"] = f"unavailable: {reason}"
        return found

    def _latency_verdict(self, plan: VariantPlan, reference: VariantPlan, found: Mapping[str, Any]) -> str:
        if plan.build_key == reference.build_key:
            return "reference"
        against_itself = noise(self.plan, self.store)
        if against_itself is None:
            return "unclear"
        ends = against_itself["low"], against_itself["high"]
        return latency.verdict(found["latency_ratio_low"], found["latency_ratio_high"], ends)

    def _why_no_energy(self, plan: VariantPlan) -> str:
        if not self.plan.suite.file.cost.energy:
            return "the suite does not ask for it"
        if reason := measuring.why_no_energy(self.plan.setting):
            return reason
        failure = self.errors.get(f"seed {plan.seed}: measure {plan.name}")
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
        if reason := self.errors.get(f"summary of {first['variant']}"):
            rows = [{**row, "status": "failed", "reason": reason} if row["status"] == "ok" else row for row in rows]
        not_ok = sorted((row for row in rows if row["status"] != "ok"), key=lambda row: row["status"] != "failed")
        if broken := next(iter(not_ok), None):  # a failure first: a method that does not apply is none
            kept = {key: first[key] for key in ("variant", "family", "method", "pool", "params", "members")}
            reason = broken["reason"] if len(rows) == 1 else f"seed {broken['seed']}: {broken['reason']}"
            states = {"status": broken["status"], "reason": reason, "verdict": broken["status"]}
            return {**kept, "seed": ALL_SEEDS, **states, "energy_source": first["energy_source"]}
        means = ("adaptive_ece", "aurc", "macro_f1", *CALIBRATED, "build_seconds", "members_train_seconds")
        summary |= {key: sum(row[key] for row in rows) / len(rows) for key in means if first[key] is not None}
        plans = tuple(self.plan.variants[seed][first["variant"]] for seed in self.plan.seeds)
        references = tuple(self.plan.reference(seed) for seed in self.plan.seeds)
        for column in ("mcnemar_p", "reason", *scores.AGAINST_ITSELF):
            summary.pop(column, None)
        summary |= self._scores(first["variant"], ALL_SEEDS, jobs.summary_key(plans), "summary")
        if all(plan.build_key == reference.build_key for plan, reference in zip(plans, references, strict=True)):
            return summary | scores.AGAINST_ITSELF
        key = jobs.comparison_key(plans, references)
        return summary | self._comparison(key, first["variant"], self.plan.seeds)

    def examples(self) -> pd.DataFrame:
        """examples.parquet of every variant that is ok."""
        tables = []
        documents = jobs.documents_of(self.plan.setting)
        for seed in self.plan.seeds:
            for name, plan in self.plan.variants[seed].items():
                if str(seed) in self.details.get(name, {}):
                    table = jobs.examples_of(self.store, plan)
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
                    for metric, values in jobs.measures_of(self.store, plan).items():
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


def _seconds(training: Source, store: Store) -> float:
    return training_log(training, store).seconds


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


def _tidy(variants: pd.DataFrame, measures: list[dict[str, Any]], source: str) -> pd.DataFrame:
    """scores.parquet: one row per variant, seed and metric, with its interval where it has one, and its source."""
    bounds = {"diff_vs_reference": "diff", "latency_ratio_p50": "latency_ratio"}
    tables = []
    for column in METRICS:
        stem = bounds.get(column, column)
        table = variants[["variant", "seed"]].copy()
        table["metric"] = column
        table["value"] = pd.to_numeric(variants[column])
        for end in ("low", "high"):
            table[end] = pd.to_numeric(variants[f"{stem}_{end}"]) if f"{stem}_{end}" in variants else float("nan")
        table["n"] = pd.to_numeric(variants["n"]).astype("Int64")
        table["source"] = _source(column, variants)
        tables.append(table.dropna(subset="value"))
    if measures:
        tables.append(pd.DataFrame(measures).astype({"low": float, "high": float}).assign(source=source))
    return pd.concat(tables, ignore_index=True)


def _source(column: str, variants: pd.DataFrame) -> Any:
    if column in ("peak_memory_bytes", "working_memory_bytes"):
        return variants["memory_source"]
    if column == "predicted_memory_bytes":
        return "analytic"
    if column in COUNTED:
        return "counter"
    if column.startswith(("energy", "gpu")):
        return variants["energy_source"]
    timed = ("latency", "throughput", "build_seconds", "members_train", "money")
    return "timer" if column.startswith(timed) else "test split"


def _write_study(folder: Path, plan: Plan, store: Store, errors: Mapping[str, str]) -> list[str]:
    """correlation.csv and correlation.json; returns warnings for the pools that have no study."""
    tables, warnings = [], []
    for study in plan.studies:
        place = f"the study of pool '{study.pool.name}', seed {study.seed}"
        if reason := errors.get(f"seed {study.seed}: study of {study.pool.name}"):
            warnings.append(f"{place}, failed: {reason}")
            continue
        record = read_json(store.path(study.key()) / "study.json")
        if record["status"] != "ok":
            warnings.append(f"{place}, does not apply: {record['reason']}")
            continue
        tables.append(pd.DataFrame(record["rows"]).assign(pool=study.pool.name, seed=study.seed))
    if tables:
        whole = pd.concat(tables, ignore_index=True)[list(CORRELATION_COLUMNS)]
        whole.to_csv(folder / "correlation.csv", index=False)
        write_json(folder / "correlation.json", correlate.correlations(whole))
    return warnings


def _record(
    plan: Plan,
    store: Store,
    rows: list[dict[str, Any]],
    details: Mapping[str, Mapping[str, Any]],
    warnings: list[str],
    run_record: Mapping[str, Any],
) -> dict[str, Any]:
    """run.json."""
    suite, task, documents = plan.suite, plan.task, jobs.documents_of(plan.setting)
    summaries = [row for row in rows if row["seed"] == ALL_SEEDS]
    states = [row["status"] for row in summaries]
    reference = next(row["status"] for row in summaries if row["variant"] == suite.file.reference)
    if plan.options.limit is not None:
        trial = f"a trial run on the first {len(documents.ids)} test examples (--limit): never a verdict"
        warnings = [*warnings, trial]
    sources = {t.digests[-1]: t for pool in plan.pools[plan.seeds[0]].values() for t in (pool.base, *pool.members) if t}
    warnings = [*warnings, *(note for source in sources.values() for note in notes_of(source, store))]
    warnings = [*warnings, *documents.notes]
    for name, seeds in details.items():
        for sentence in sorted({w for found in seeds.values() for w in found.get("warnings", [])}):
            warnings = [*warnings, f"{name}: {sentence}"]
    summary = {"variants": len(states), **{s: states.count(s) for s in ("ok", "not_applicable", "failed")}}
    summary |= {"jobs_run": run_record["jobs_run"], "jobs_reused": run_record["jobs_reused"]}
    return {
        "schema_version": SCHEMA_VERSION,
        "suite": {
            "name": suite.file.suite,
            "question": suite.file.question,
            "path": suite.path,
            "digest": suite.digest,
            "yaml": suite.text,
        },
        "status": "complete" if "failed" not in states and reference == "ok" else "incomplete",
        "git_commit": environment.git_commit(),
        "machine": environment.machine(),
        "versions": environment.versions(),
        "device": plan.setting.device,
        "devices": environment.devices(),
        "dtype": "float32",
        "batch_policy": {"test": task.test.batch},
        "seeds": plan.seeds,
        "limit": plan.options.limit,
        "only": plan.options.only,
        "task": {
            "name": task.name,
            "title": task.title,
            "source": task.source,
            "digest": task.digest,
            "classes": documents.classes,
            "criterion": task.heldout.criterion,
            "splits": {split.name: len(split.inputs) for split in (task.train, task.heldout, task.test)},
            "documents": dict(Counter(documents.tasks)),
        },
        "reference": {
            "variant": suite.file.reference,
            "members": {s: found.get("member") for s, found in sorted(details.get(suite.file.reference, {}).items())},
        },
        "pools": {name: _pool_record(plan, name, store) for name in plan.pools[plan.seeds[0]]},
        "summary": summary | _shared_passes(plan, store),
        "noise": noise(plan, store),
        "capacity": _capacity(plan),
        "warnings": warnings,
        **{key: run_record[key] for key in ("run_id", "started", "wall_seconds", "engine")},
    }


def _capacity(plan: Plan) -> dict[str, Any] | None:
    if not plan.suite.file.cost.memory or not plan.store.has(measuring.process_key(plan.setting)):
        return None  # not asked for, or the job that measures a process failed, which is in the log
    budget = capacity.budget_of(plan)
    found = list(capacity.capacities(plan, budget))
    return capacity.as_record(budget, found, capacity.untold(plan, found))


def noise(plan: Plan, store: Store) -> dict[str, Any] | None:
    """The reference timed against itself: what a latency ratio means nothing within. None where it was not timed."""
    reference = plan.reference(plan.seeds[0])
    key = reference.latency_key(reference)
    if not store.has(key):
        return None
    found = read_json(store.path(key) / "latency.json")
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


def _pool_record(plan: Plan, name: str, store: Store) -> dict[str, Any]:
    first: PoolPlan = plan.pools[plan.seeds[0]][name]
    seeds = {}
    for seed in plan.seeds:
        pool = plan.pools[seed][name]
        trained = (*((pool.base,) if pool.base else ()), *pool.members)
        seeds[str(seed)] = {
            "train_seconds": round(sum(_seconds(t, store) for t in trained), 3),
            "members": [
                {
                    "name": t.name,
                    "architecture": str(t.architecture),
                    "train_seconds": round(_seconds(t, store), 3),
                    **t.describe(),
                }
                for t in trained
            ],
        }
    architectures = sorted({str(t.architecture) for t in first.members})
    members = sum(t.checkpoints for t in first.members)
    return {"kind": first.kind, "architectures": architectures, "members": members, "seeds": seeds}


def _shared_passes(plan: Plan, store: Store) -> dict[str, Any]:
    """What the main pool's own predictions cost, and what all output-space variants on them cost beyond that.

    MC dropout is not among them: its passes are model runs of its own.
    """
    device, task = plan.setting.device, plan.task
    predict = combine = 0.0
    names = set()
    for seed in plan.seeds:
        for digest in jobs.member_digests(plan.pools[seed]["main"]):
            for split in (task.heldout, task.test):
                key = predictions_key(digest, split, device)
                if store.has(key):
                    predict += read_json(store.path(key) / "cost.json")["seconds"]
        for name, variant in plan.variants[seed].items():
            built = jobs.built(store, variant)
            on_members = METHODS.get(variant.method).family in ("output", "single") and variant.method != "mc_dropout"
            if on_members and variant.pool.name == "main" and built and store.has(variant.evaluation_key):
                evaluation = read_json(store.path(variant.evaluation_key) / "evaluation.json")
                combine += built["fit_seconds"] + evaluation["combine_seconds"]
                names.add(name)
    members = len(jobs.member_digests(plan.pools[plan.seeds[0]]["main"]))
    return {
        "main_members": members,
        "predict_seconds": round(predict, 3),
        "combine_seconds": round(combine, 3),
        "output_variants": len(names),
    }
