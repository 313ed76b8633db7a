"""The results contract: what every field in the files of a finished run's folder means."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from harness.errors import BadInput
from harness.registry import COSTS, METRICS
from harness.results import lm_eval_metrics, other_columns
from harness.results.metric import DOCUMENTS, SOURCES, Column

SCHEMA_VERSION = 2
READ_VERSIONS = (1, 2)
"""Version 1 compared every variant with the main pool's reference, by accuracy alone, and each as if it were the only
one; it had no comparisons.parquet."""

ALL_SEEDS = "all"
"""The value of ``seed`` in the row that summarises all seeds of a variant."""

NO_REFERENCE = "no_reference"
"""The verdict of a variant that has scores while the reference has none."""

WORDS: dict[str, str] = {
    "variant": "name: pool:method/parameter=value,... with what differs from the defaults",
    "family": "single, output, weights, trained or staged",
    "method": "registry name",
    "pool": "the suite's pool it was built from",
    "reference": "the variant that it is compared with: that of its own pool",
    "params": "all parameters, JSON",
    "members": "how many members of the pool it was given",
    "seed": "one row for each seed, and one 'all'",
    "status": "ok, not_applicable or failed",
    "reason": "why it is not ok, or not compared with the reference; of a reference, why it lacks the suite's score",
    "verdict": "by the suite's score, of these models, for the whole table: better, worse, equivalent, unclear, "
    "reference; no_reference where that has none; the status where it is not ok",
    "recipe_verdict": "the same of models like these: seeds are a sample too; empty with one seed",
    "best_set": "True where it may be the best of all by the suite's score (95 %)",
    "pareto": "True where no other variant has as good a score at a lower cost of serving (run.json): fewer FLOPs, or "
    "less of what the members' own files say",
    "n": "test examples",
}
"""The columns of variants.csv that say what a row is about, and what came of it; they come first."""


HINT = "mend or uninstall the plug-in"


def numbers() -> dict[str, Column]:
    """The columns of variants.csv that are numbers to judge a variant by, in order, by name.

    Each is declared once, by a metric or a cost, of ours or of a plug-in; scores.parquet has a row for each that has a
    value. ``BadInput`` where a plug-in declares a column that there already is, of variants.csv or of
    examples.parquet, or says that a number comes from where nothing does.
    """
    found: dict[str, Column] = {}
    words = {name for cost in COSTS for name, _ in cost.words}
    taken = {*WORDS, *words}
    _ = example_columns()
    for column, module in _all():
        names = {column.name, *column.bounds}
        if twice := sorted(names & taken):
            raise BadInput(f"the column '{twice[0]}' of variants.csv is declared twice", place=module, hint=HINT)
        if column.source not in SOURCES and column.source not in words:
            problem = f"the column '{column.name}' of variants.csv has a source that there is not"
            raise BadInput(problem, place=module, given=column.source, choices=[*SOURCES, *sorted(words)], hint=HINT)
        taken |= names
        found[column.name] = column
    return found


def _all() -> Iterator[tuple[Column, str]]:
    """Every number with the module that declares it, or the score that it is a difference of."""
    yield from _declared()
    yield from ((difference_of(column), module) for column, module in _paired() if column.name != "accuracy")


def _declared() -> Iterator[tuple[Column, str]]:
    """Every number with the module that declares it, but differences of scores."""
    yield from ((metric.column, metric.module) for metric in METRICS)
    others = (*other_columns.UNREGISTERED_SCORES, *other_columns.UNREGISTERED_COSTS)
    yield from ((column, other_columns.__name__) for column in others)
    yield from ((column, cost.module) for cost in COSTS for column in cost.columns)


def _paired() -> Iterator[tuple[Column, str]]:
    """The scores of which one end is better, with a value for each example or document; with who declares them."""
    declared = ((metric.column, metric.module) for metric in METRICS)
    yield from ((column, module) for column, module in declared if column.outcome and column.better)
    yield other_columns.BITS, other_columns.__name__


def paired() -> dict[str, Column]:
    """The scores by which variants are compared, by name: one end is better, and every document has a value."""
    return {column.name: column for column, _ in _paired()}


def difference_of(column: Column) -> Column:
    """The column of a score's difference from the reference."""
    if column.name == "accuracy":
        return other_columns.DIFFERENCE
    name = f"{column.name}_diff"
    meaning = f"{column.name} minus the reference's; 95 % interval, as of diff_vs_reference"
    most = column.most - column.least
    return Column(name, meaning, column.better, column.unit, -most, most, name)


def plugged_in() -> dict[str, Column]:
    """The numbers that plug-ins add, by name."""
    return {column.name: column for column, module in _declared() if module.split(".")[0] != "harness"}


def portable_scores() -> tuple[str, ...]:
    """The numbers that say how good a variant is and mean the same outside its run and its machine."""
    recalibrated = (column for column in other_columns.CALIBRATED if column.better)
    return tuple(column.name for column in (*(metric.column for metric in METRICS), other_columns.BITS, *recalibrated))


def variant_columns() -> dict[str, str]:
    """The columns of variants.csv, in order, with what they mean; those of bounds say nothing of their own.

    Columns are added, never renamed, without a new schema version.
    """
    found = dict(WORDS)
    for column in numbers().values():
        found |= {column.name: column.meaning, **dict.fromkeys(column.bounds, "")}
    for cost in COSTS:
        found |= dict(cost.words)
    return found


def is_column(source: str) -> bool:
    """Whether ``Column.source`` names a column of variants.csv that says it, row by row."""
    return source.endswith("_source")


def column_of(metric: str) -> Column | None:
    """What is known of a metric by its name in scores.parquet; None for one that there cannot be.

    Of a task or a view ("acc/sciq", "exact_match,strict-match/gsm8k", "accuracy/inverted") it is what the metric of
    that name says, ours or lm-eval's; of what members cost by their own files ("cost/money") what ``OWN_COST`` says,
    of written answers ("generated_tokens/gsm8k") what ``GENERATED`` says, and of stages what ``BY_STAGE`` does. A task
    may also have metrics of its own, of which nothing is known.
    """
    kind, slash, _ = metric.partition("/")
    name = kind.partition(",")[0] if slash else metric
    measures = {column.name: column for column in other_columns.MEASURES} if slash else {}
    known = measures.get(name) or next((column for column, _ in _all() if column.name == name), None)
    if not slash:
        return known
    if known is not None:
        return replace(known, name=metric, interval=None, outcome=DOCUMENTS)
    least, most = (0.0, 1.0) if name in lm_eval_metrics.SHARES else (-math.inf, math.inf)
    return Column(metric, "a metric of lm-eval", lm_eval_metrics.better(name), "", least, most, outcome=DOCUMENTS)


SCORE_COLUMNS = {
    "variant": "name",
    "seed": "the suite's seed, or 'all'",
    "metric": "a column of variants.csv, lm-eval's metric/task, metric,filter/task or metric/group, metric/view, or "
    "cost/NAME of members that bring their costs",
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
    "cluster": "what examples that count as one have in common; only where the task names it",
    "prediction": "the most probable class",
    "confidence": "its probability",
    "correct": "whether it is the label",
    "nll": "of the label, nats; infinite where that was given probability 0, which leaves the variant without its mean",
    "brier": "squared error summed over classes",
    "calls": "how many models ran for it; of runs from before this column it is not known",
}
"""The columns that every examples.parquet has: one row per variant, seed and test example."""


def example_columns() -> dict[str, str]:
    """The columns of examples.parquet: with the outcomes that metrics add; ``BadInput`` where one is there already."""
    found = dict(EXAMPLE_COLUMNS)
    for metric in METRICS:
        if metric.per_example is None:
            continue
        if (outcome := str(metric.column.outcome)) in found:
            problem = f"the column '{outcome}' of examples.parquet is declared twice"
            raise BadInput(problem, place=metric.module, hint=HINT)
        found[outcome] = f"of which {metric.name} is the mean"
    return found


MEASURE_COLUMNS = {
    "variant": "name",
    "seed": "the suite's seed",
    "metric": "metric/task, metric/view or cost/name, such as bits_per_byte/bytes_python or cost/money; the mean over "
    "its documents is the score; lm-eval's scores that are no means of documents (F1) are in scores.parquet only",
    "document": "position in the task, or among the test examples: of all seeds, by id, where each has its own split",
    "cluster": "what documents that count as one have in common; only where the task names it",
    "value": "of this document",
}
"""The columns of measures.parquet, which runs on lm-eval's tasks or with views have: a row per document and metric."""


INTERMEDIATE_COLUMNS = {
    "variant": "name",
    "seed": "the suite's seed",
    "example_id": "stable id of the test example",
    "stage": "from 1; 0 is what the pipeline was given",
    "name": "the stage's model",
    "kind": "text or class",
    "value": "what the stage said; of a pair of texts, a JSON list",
    "truth": "what it should have said, where the task tells",
    "failed": "why the stage could not take the example; empty where it could",
}
"""The columns of intermediate.parquet, which runs of pipelines on texts have: a row per variant, example and stage."""


COMPARISON_COLUMNS = {
    "variant": "name",
    "against": "the variant that it is compared with",
    "kind": "own pool: a combination and the reference of its pool; pools: two pools' references, whose training "
    "differs, which is no verdict on a method",
    "metric": "the score",
    "seed": "the suite's seed, or 'all'",
    "scope": "these models: the mean over the seeds, examples are a sample; models like these: seeds are one too",
    "difference": "the variant's score minus the other's, paired by example",
    "low": "95 % interval of this difference alone",
    "high": "",
    "low_together": "95 % interval that holds for all differences of the table at once (of these models by the largest "
    "studentised one, of models like these by Bonferroni)",
    "high_together": "",
    "p": "two-sided, of no difference",
    "p_adjusted": "the same for the whole table: by the largest studentised difference; of models like these by Holm",
    "margin": "differences within it are equivalent",
    "verdict": "better, worse, equivalent, unclear; empty between pools",
    "n": "test examples, documents or clusters of them",
}
"""The columns of comparisons.parquet: one row per variant, score, seed and scope."""


CORRELATION_COLUMNS = {
    "pool": "the suite's pool",
    "seed": "the suite's seed",
    "subset": "positions of the members, joined by +",
    "size": "how many members",
    "metric": "accuracy or nll",
    "ensemble": "test score of the subset's ensemble; empty where it is infinite",
    "average": "test score of the average of the subset's weights",
    "members": "mean test score of the members themselves",
}
"""The columns of correlation.csv: one row per pool, seed, subset and metric."""


RUN_FIELDS = {
    "schema_version": "of this folder",
    "suite": "{name, question, path, digest, yaml}: the suite as it was read",
    "run_id": "the folder's name",
    "status": "complete; incomplete where a variant failed or the reference has no result; interrupted where Ctrl-C or "
    "SIGTERM ended the run: what was not done by then is failed",
    "started": "UTC, ISO 8601",
    "wall_seconds": "from the start until all jobs were done; of all the suites that the command ran at once",
    "beside": "the other suites whose jobs ran in the same time on the same cores",
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
    "planned": "[the names of all variants that were to be run]: each has a row for every seed and one of all; absent "
    "from runs before this field",
    "task": "{name, title, source, digest: of all that is asked, classes, criterion: what held-out choices go by, "
    "splits: {train, heldout, test} of a seed, split: shared, or per_seed where every seed has a split of its own; of "
    "runs from before this field it is shared, documents: {task: how many are scored, on any seed}}",
    "reference": "{variant, members: {seed: which member it is}}",
    "references": "{pool: the variant that its variants are compared with}",
    "scores": "[the metrics that verdicts go by, the one that decides first]",
    "best": "{score: {variant, value, corrected: for having been picked on the test examples, low, high: 95 % interval "
    "of that, set: all that may be the best}}",
    "pools": "{pool: {kind, architectures, members, seeds: {seed: {train_seconds, members: [{name, ...}]}}}}",
    "summary": "{variants, ok, not_applicable, failed, jobs_run, jobs_reused, predict_seconds, combine_seconds, "
    "output_variants, ...}",
    "serving": "{cost: the metric by which budgets and fronts go, null without any, why_no_costs: why nothing that "
    "running takes was counted or measured, or null}; of runs from before this field: flops_per_example",
    "noise": "{latency_ratio, low, high, throughput_ratio, throughput_low, throughput_high, rounds, clock, batch, "
    "threads, cores, sm_mhz, memory_mhz, measured}: the reference timed against itself, whenever anything is timed, "
    "first seed; null where no times were taken. clock: processor or wall; cores: those it might use; *_mhz: of a GPU",
    "capacity": "{budget_bytes, budget_source, process_bytes, pools: {pool: {models, batch, model_bytes, input_bytes, "
    "bytes_of_one, bytes_of_all, largest_batch_of_one, largest_batch_of_all, largest_ensemble}}, "
    "untold: pools without a prediction}: predicted; null "
    "where memory is not asked for",
    "shards": "[{number, of, run_id, started, wall_seconds, git_commit, machine, devices, engine}] of a run that was "
    "put together (merge-runs), whose machine, versions, devices and engine are the first one's; null of any other, "
    "absent from runs before this field",
    "warnings": "sentences a reader should know",
}
"""The fields of run.json."""
