"""The results contract: what every field in the files of a finished run's folder means."""

from __future__ import annotations

SCHEMA_VERSION = 1


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
    "params_active": "parameters that one example meets, over all model calls; of staged systems the mean",
    "flops_per_example": "matrix products and convolutions, 1 multiply-add = 2; of staged systems the mean",
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
    "calls": "how many models ran for it; of runs from before this column it is not known",
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
