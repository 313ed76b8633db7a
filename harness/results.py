"""The results contract: which files a finished run's folder holds, and what every field in them means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from harness.errors import BadInput
from harness.store import read_json

SCHEMA_VERSION = 1

BASELINES = "baselines"
"""The folder of a results folder that holds copies of runs to compare with."""

ALL_SEEDS = "all"
"""The value of ``seed`` in the row that summarises all seeds of a variant."""

NO_REFERENCE = "no_reference"
"""The verdict of a variant that has scores while the reference has none."""

VARIANT_COLUMNS: dict[str, str] = {
    "variant": "name: pool:method/parameter=value,... with what differs from the defaults",
    "family": "single, output, weights, trained or staged",
    "method": "registry name",
    "pool": "the suite's pool it was built from",
    "params": "all parameters, JSON",
    "members": "how many members of the pool it was given",
    "seed": "one row for each seed, and one 'all'",
    "status": "ok, not_applicable or failed",
    "reason": "why it is not ok, or not compared with the reference",
    "n": "test examples",
    "accuracy": "share of test examples that are right",
    "accuracy_low": "95 % interval (one seed: Wilson; all: of a mean over seeds and examples)",
    "accuracy_high": "",
    "nll": "mean negative log-likelihood of the label, nats",
    "nll_low": "95 % interval (one seed: bootstrap; all: of a mean over seeds and examples)",
    "nll_high": "",
    "brier": "mean squared error of the probabilities, summed over classes",
    "brier_low": "95 % interval, as of nll",
    "brier_high": "",
    "ece": "expected calibration error, 15 equal-width bins",
    "ece_low": "95 % interval: the calibration errors that a test of them does not refute; all: of the mean over seeds",
    "ece_high": "",
    "adaptive_ece": "calibration error over 15 bins of equal mass",
    "aurc": "area under the risk-coverage curve",
    "macro_f1": "mean F1 over the classes",
    "bits_per_byte": "of language models: negative log-likelihood of test text in bits, over its bytes",
    "bits_per_byte_low": "95 % interval (bootstrap over passages; several seeds: of a mean over these and passages)",
    "bits_per_byte_high": "",
    "temperature": "the temperature fitted on held-out for the two columns that follow",
    "nll_calibrated": "NLL after temperature scaling on held-out",
    "ece_calibrated": "ECE after temperature scaling on held-out",
    "diff_vs_reference": "accuracy minus the reference's, paired by example",
    "diff_low": "95 % interval, of one seed by paired bootstrap, of several as that of a mean over seeds and examples",
    "diff_high": "",
    "mcnemar_p": "exact McNemar test of equal accuracy, two-sided",
    "verdict": "better, worse, unclear, reference; no_reference where that has none; the status where it is not ok",
    "params_stored": "parameters of all different models it holds",
    "params_active": "parameters that one example meets, over all model calls",
    "flops_per_example": "matrix products and convolutions, 1 multiply-add = 2",
    "latency_ms_p50": "median time of one example alone, milliseconds (first seed)",
    "latency_ms_p95": "",
    "latency_ratio_p50": "time of one example divided by the reference's, both in turn: median over blocks of rounds",
    "latency_ratio_low": "95 % interval over the blocks",
    "latency_ratio_high": "",
    "latency_verdict": "faster, slower, reference; unclear where the interval is not beyond the noise of run.json",
    "throughput_per_s": "examples per second in full batches",
    "throughput_ratio": "the same of a full batch",
    "latency_parallel_ms_p50": "of an ensemble on a GPU: one example with all members at once, on streams of their own",
    "throughput_parallel_per_s": "the same in full batches",
    "peak_memory_bytes": "peak memory of a fresh process that only runs this",
    "working_memory_bytes": "the part of it above the idle process",
    "predicted_memory_bytes": "working memory as predicted before anything ran; of single models and linear ensembles",
    "memory_source": "where the memory figures come from",
    "energy_j_per_example": "joules per example in full batches, all that the device used (first seed)",
    "energy_net_j_per_example": "less what the idle device uses in the same time",
    "energy_j_per_correct": "divided by the accuracy; of images only, where both have the same examples",
    "gpu_utilisation": "per cent of that time in which a kernel ran",
    "energy_source": "where the energy figure comes from, or why there is none",
    "money_per_million_examples": "from throughput and the suite's price_per_gpu_hour, on a GPU",
    "build_seconds": "time to build it from trained members, held-out searches included",
    "members_train_seconds": "time it took to train the members it was given, and their base",
    "pareto": "True where no other variant is as accurate at fewer FLOPs",
}
"""The columns of variants.csv, in order. Columns are added, never renamed, without a new schema version."""

METRICS = tuple(
    column
    for column in VARIANT_COLUMNS
    if column
    not in ("variant", "family", "method", "pool", "params", "members", "seed", "status", "reason", "n", "verdict",
            "pareto", "latency_verdict")
    and not column.endswith(("_low", "_high", "_source"))
)  # fmt: skip
"""The columns of variants.csv that are numbers to judge a variant by; scores.parquet has a row for each."""

SCORE_COLUMNS = {
    "variant": "name",
    "seed": "the suite's seed, or 'all'",
    "metric": "a column of variants.csv, lm-eval's metric/task, metric,filter/task or metric/group, or metric/view",
    "value": "its value",
    "low": "95 % interval, where it has one",
    "high": "",
    "n": "test examples",
    "source": "where the value comes from",
}
"""The columns of scores.parquet."""

EXAMPLE_COLUMNS = {
    "variant": "name",
    "seed": "the suite's seed",
    "example_id": "stable id of the test example",
    "task": "the task it comes from",
    "label": "the truth",
    "prediction": "the most probable class",
    "confidence": "its probability",
    "correct": "whether it is the label",
    "nll": "of the label, nats",
    "brier": "squared error summed over classes",
}
"""The columns of examples.parquet: one row per variant, seed and test example."""

MEASURE_COLUMNS = {
    "variant": "name",
    "seed": "the suite's seed",
    "metric": "metric/task or metric/view, such as bits_per_byte/bytes_python or accuracy/inverted; the mean over its "
    "documents is the score; lm-eval's scores that are no means of documents, such as F1, are in scores.parquet only",
    "document": "position in the task, or among the test images",
    "value": "of this document",
}
"""The columns of measures.parquet, which runs on lm-eval's tasks or with views have: a row per document and metric."""

CORRELATION_COLUMNS = {
    "pool": "the suite's pool",
    "seed": "the suite's seed",
    "subset": "positions of the members, joined by +",
    "size": "how many members",
    "metric": "accuracy or nll",
    "ensemble": "test score of the subset's ensemble",
    "average": "test score of the average of the subset's weights",
    "members": "mean test score of the members themselves",
}
"""The columns of correlation.csv: one row per pool, seed, subset and metric."""

RUN_FIELDS = {
    "schema_version": "of this folder",
    "suite": "{name, question, path, digest, yaml}: the suite as it was read",
    "run_id": "the folder's name",
    "status": "complete, or incomplete where a variant failed or the reference has no result",
    "started": "UTC, ISO 8601",
    "wall_seconds": "of the whole command, the report excluded",
    "git_commit": "of the code, with + where files differed; null outside a checkout",
    "machine": "{system, cpu, cores, memory_bytes}",
    "versions": "of Python and the libraries that compute",
    "device": "which of them the run was on: cpu, cuda:0",
    "devices": "[{name, kind, memory_bytes}]: all that the machine has",
    "engine": "{name, workers, threads_per_worker}",
    "dtype": "in which predictions are computed and combined",
    "batch_policy": "{test: examples in a batch}: results may differ in the last digits with it",
    "seeds": "as run",
    "limit": "test examples kept by --limit; null for all",
    "only": "the --only filter; null for all variants",
    "task": "{name, title, source, digest: of all that is asked, classes, criterion: what held-out choices go by, "
    "splits: {train, heldout, test}, "
    "documents: {task: how many are scored}}",
    "reference": "{variant, members: {seed: which member it is}}",
    "pools": "{pool: {kind, architectures, members, seeds: {seed: {train_seconds, members: [{name, ...}]}}}}",
    "summary": "{variants, ok, not_applicable, failed, jobs_run, jobs_reused, predict_seconds, combine_seconds, "
    "output_variants, ...}",
    "noise": "{latency_ratio, low, high, throughput_ratio, throughput_low, throughput_high, rounds, clock, batch, "
    "threads, cores, sm_mhz, memory_mhz, measured}: the reference timed against itself, whenever anything is timed, "
    "first seed; null where no times were taken. clock: processor or wall; cores: those it might use; *_mhz: of a GPU",
    "capacity": "{budget_bytes, budget_source, process_bytes, pools: {pool: {models, batch, model_bytes, input_bytes, "
    "bytes_of_one, bytes_of_all, largest_batch_of_one, largest_batch_of_all, largest_ensemble}}, "
    "untold: pools without a prediction}: predicted; null "
    "where memory is not asked for",
    "warnings": "sentences a reader should know",
}
"""The fields of run.json."""


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder; tables are read when asked for."""

    folder: Path
    record: dict[str, Any]
    """run.json."""

    @cached_property
    def variants(self) -> pd.DataFrame:
        """variants.csv; ``seed`` is text."""
        texts = {"seed": str, "reason": str}
        return pd.read_csv(self.folder / "variants.csv", dtype=texts)

    @cached_property
    def details(self) -> dict[str, dict[str, Any]]:
        """details.json: variant -> seed -> what building it found out (weights, curves, warnings)."""
        return read_json(self.folder / "details.json")

    @cached_property
    def examples(self) -> pd.DataFrame | None:
        """examples.parquet, or None where the folder is a summary without it."""
        path = self.folder / "examples.parquet"
        return pd.read_parquet(path) if path.is_file() else None

    @cached_property
    def scores(self) -> pd.DataFrame:
        """scores.parquet: a row per variant, seed and metric that has a value; empty where the folder is without it."""
        path = self.folder / "scores.parquet"
        return pd.read_parquet(path) if path.is_file() else pd.DataFrame(columns=list(SCORE_COLUMNS))

    @cached_property
    def measures(self) -> pd.DataFrame:
        """Scores of parts of the task, over all seeds: variants by "metric/task" or "metric/view"; may be empty."""
        table = self.scores
        rows = table[(table["seed"] == ALL_SEEDS) & table["metric"].str.contains("/")]
        return rows.pivot(index="variant", columns="metric", values="value") if len(rows) else pd.DataFrame()

    @cached_property
    def document_measures(self) -> pd.DataFrame | None:
        """measures.parquet, or None where there are none, or where the folder is a summary without it."""
        path = self.folder / "measures.parquet"
        return pd.read_parquet(path) if path.is_file() else None

    @cached_property
    def subsets(self) -> pd.DataFrame | None:
        """correlation.csv, or None where the suite has no study."""
        path = self.folder / "correlation.csv"
        return pd.read_csv(path, dtype={"seed": str, "subset": str}) if path.is_file() else None

    @cached_property
    def correlations(self) -> list[dict[str, Any]]:
        """correlation.json: one entry per pool, metric and seed (or 'all'), with n, members and three coefficients."""
        path = self.folder / "correlation.json"
        return read_json(path) if path.is_file() else []

    def alone(self, variant: str, name: str) -> Run:
        """A view of the run with one variant only, under another name; ``BadInput`` where it does not have it."""
        known = self.variants["variant"].unique()
        if variant not in known:
            raise BadInput(f"the run has no variant '{variant}'", place=str(self.folder), given=variant, choices=known)
        view = Run(self.folder, self.record)
        for key in ("variants", "scores", "examples", "document_measures"):
            table: pd.DataFrame | None = getattr(self, key)
            if table is not None:
                table = table[table["variant"] == variant].assign(variant=name)
            view.__dict__[key] = table  # where the cached properties keep theirs
        return view


def read_run(folder: Path) -> Run:
    """A finished run; ``BadInput`` where the folder is none, or is of another schema version."""
    folder = Path(folder)
    record_path = folder / "run.json"
    if not record_path.is_file():
        hint = "name the folder of one run, such as results/mnist/latest"
        raise BadInput(f"no run.json in {folder}", place=str(folder), hint=hint)
    try:
        record = read_json(record_path)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise BadInput("run.json is not JSON", place=str(record_path), hint="was the file cut off?") from None
    parts = ("suite", "task", "summary")
    if not isinstance(record, dict) or not all(isinstance(record.get(part, {}), dict) for part in parts):
        raise BadInput("run.json is not a run's record", place=str(record_path), hint="was it edited?")
    version = record.get("schema_version")
    if version != SCHEMA_VERSION:
        raise BadInput(f"results of schema version {version}; this stockpot reads {SCHEMA_VERSION}", place=str(folder))
    for name in ("variants.csv", "details.json"):
        if not (folder / name).is_file():
            raise BadInput(f"{name} is missing", place=str(folder), hint="run the suite again")
    return Run(folder, record)


def has_answer(run: Run) -> bool:
    """Whether the reference has a result, and so there is something that every other variant is compared with."""
    return _status_of_reference(run) == "ok"


def what_failed(run: Run) -> list[str]:
    """A line that counts the variants that failed, and one where the run has no answer; none where all is well."""
    rows = run.variants[run.variants["seed"] == ALL_SEEDS]
    broken = rows[rows["status"] == "failed"]
    lines = []
    if len(broken):
        first = broken.iloc[0]
        which = f"the first is {first['variant']}: {first['reason']}"
        lines.append(f"{len(broken)} of {len(rows)} variants failed; {which}")
    if not has_answer(run):
        name, status = run.record["reference"]["variant"], _status_of_reference(run)
        words = "does not apply" if status == "not_applicable" else "failed"
        scored = int((rows["status"] == "ok").sum())
        lines.append(f"no answer: the reference {name} {words}; {scored} of {len(rows)} variants have scores")
    return lines


def _status_of_reference(run: Run) -> str:
    rows = run.variants[run.variants["seed"] == ALL_SEEDS]
    found = rows.loc[rows["variant"] == run.record["reference"]["variant"], "status"]
    return str(found.iloc[0]) if len(found) else "failed"


def data_difference(record: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """How the data of two runs (their run.json) differs; None where it is the same, as far as both record it."""
    ours, theirs = record["task"], other["task"]
    words = {"name": "task", "source": "task's source", "splits": "size of its splits",
             "documents": "number of test documents", "digest": "content"}  # fmt: skip
    return next((f"other data: the {word} differs" for key, word in words.items()
                 if key in ours and key in theirs and ours[key] != theirs[key]), None)  # fmt: skip


def runs_below(root: Path) -> list[Path]:
    """The folders of all finished runs below a results folder, oldest first within each suite; baselines are copies."""
    found = (path.parent for path in Path(root).glob("*/*/run.json") if not path.parent.is_symlink())
    return sorted(folder for folder in found if folder.parent.name != BASELINES)
