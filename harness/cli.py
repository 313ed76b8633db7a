"""The command line. Data goes to stdout, everything else to stderr; a user's mistake is one line and exit code 2."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from harness.errors import BadInput

app = typer.Typer(
    help="Stockpot: ensemble, average, merge, distil or route? Build every combination of your models and decide by "
    "evidence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
listing = typer.Typer(help="List what there is.", no_args_is_help=True)
cache = typer.Typer(help="Look after the store of artefacts.", no_args_is_help=True)
app.add_typer(listing, name="ls")
app.add_typer(cache, name="cache")
baseline = typer.Typer(help="What gates compare with.", no_args_is_help=True)
app.add_typer(baseline, name="baseline")

SuitePath = Annotated[Path, typer.Argument(help="A suite file, such as suites/mnist.yaml.", metavar="SUITE")]
Out = Annotated[Path, typer.Option(help="Folder of the results; artefacts are kept in its .store.")]
Only = Annotated[str | None, typer.Option(help="Only variants of this method or name ('linear*'), and the reference.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N test examples: a trial run, never a verdict.")]
Seed = Annotated[int | None, typer.Option(min=0, help="This seed instead of the suite's.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, or one of several GPUs such as cuda:1.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes; one for each core by default.")]
AllowCode = Annotated[bool, typer.Option("--allow-code", help="Run the functions and scripts that the suite's task "
                                                              "files name: read them first.")]  # fmt: skip


NO_ANSWER = 5
"""The exit code of a run that has none: the gate's word for it is incomplete, with the same code."""

# Modules are imported inside the commands: torch takes over a second, and --help should not.


@app.command()
def run(
    suites: Annotated[list[Path], typer.Argument(help="Suite files, run in turn.", metavar="SUITE...")],
    out: Out = Path("results"),
    only: Only = None,
    limit: Limit = None,
    seed: Seed = None,
    device: Device = "auto",
    engine: Annotated[str, typer.Option(help="How jobs run: local (processes on this machine).")] = "local",
    workers: Workers = None,
    allow_code: AllowCode = False,
) -> None:
    """Build, score and report every variant of the suites; what earlier runs made is reused.

    The run's folder is printed on stdout. Run the same command again after an interruption: it continues. Exit codes:
    0 done, also where some variants failed, which a line on stderr counts; 5 where a run has no answer, since every
    variant failed or does not apply, or the reference did. All suites are run in any case.
    """
    from harness.report import write_report
    from harness.run import progress, runner
    from harness.run.planning import make_plan

    if engine != "local":
        raise BadInput(f"unknown engine '{engine}'", given=engine, choices=["local"])
    read = [_suite(path) for path in suites]  # all of them first: a mistake in the last shall not cost an hour
    codes = set()
    for suite in read:
        plan = make_plan(suite, _options(out, only, limit, seed, device, workers, allow_code))
        folder = runner.run(plan, progress.progress())
        report = write_report(folder)
        codes.add(_print_summary(folder, report))
        print(folder)
    raise typer.Exit(max(codes))


@app.command()
def plan(
    suite: SuitePath,
    out: Out = Path("results"),
    only: Only = None,
    limit: Limit = None,
    seed: Seed = None,
    device: Device = "auto",
    workers: Workers = None,
    memory: Annotated[str | None, typer.Option(help="What batches and ensembles should fit in, such as 24GB; by "
                                                    "default the suite's memory_budget, or all of the device.")] = None,
    policy: Annotated[Path | None, typer.Option(help="A policy file: can the suite decide its margins?")] = None,
    earlier: Annotated[Path | None, typer.Option("--from", help="With --policy: a run that says how much models "
                                                                "differ; 10 % of answers by default.")] = None,
    allow_code: AllowCode = False,
) -> None:
    """Say what a run would do: its jobs, what is reused, about how long the rest takes, and what fits in memory.

    With --policy also whether its examples are enough to decide the policy's margins, rule by rule, and how many lack.
    """
    from harness.engines.local import LocalEngine
    from harness.run.planning import make_plan
    from harness.run.progress import duration

    if policy is None and earlier is not None:
        raise BadInput("--from goes with --policy")
    room = None if memory is None else _bytes(memory)
    planned = make_plan(_suite(suite), _options(out, only, limit, seed, device, workers, allow_code))
    missing = {job.job.name for job in planned.missing()}
    stages: dict[str, list[Any]] = {}
    for job in planned.jobs:
        stages.setdefault(job.stage, []).append(job)
    print(f"{'stage':<10}{'jobs':>6}{'reused':>8}{'to run':>8}")
    for stage, jobs in stages.items():
        todo = sum(job.job.name in missing for job in jobs)
        print(f"{stage:<10}{len(jobs):>6}{len(jobs) - todo:>8}{todo:>8}")
    workers = workers or LocalEngine().workers
    shared = sum(job.job.cost for job in planned.jobs if job.job.name in missing and job.job.kind != "alone")
    alone = sum(job.job.cost for job in planned.jobs if job.job.name in missing and job.job.kind == "alone")
    print(f"about {duration(shared / workers + alone)} with {workers} workers")
    _print_capacity(planned, room)
    if policy is not None:
        _print_power(planned, policy, earlier)


def _bytes(text: str) -> int:
    from harness.display.formats import read_bytes

    try:
        return read_bytes(text)
    except ValueError as problem:
        raise BadInput(f"bad --memory '{text}'; {problem}") from None


def _print_capacity(planned: Any, memory: int | None) -> None:
    from harness.display.capacity import COLUMNS, as_rows, untold_words
    from harness.display.formats import amount
    from harness.display.terminal_table import print_table
    from harness.run import capacity

    budget = capacity.budget_of(planned, memory)
    found = list(capacity.capacities(planned, budget))
    record = capacity.as_record(budget, found, capacity.untold(planned, found))
    print(f"\nwhat fits in {amount(budget.bytes)}B ({budget.source}), of which a process takes "
          f"{amount(budget.process)}B before it holds any model")  # fmt: skip
    if rows := as_rows(record["pools"]):
        print_table(COLUMNS, rows, right=set(COLUMNS) - {"pool"})
    if words := untold_words(record):
        print(words)


def _print_power(planned: Any, policy: Path, earlier: Path | None) -> None:
    from harness.display.terminal_table import print_table
    from harness.gate import power, power_table
    from harness.gate.policy import read_policy
    from harness.results.evidence import read_tables
    from harness.run import jobs

    rules = read_policy(policy)
    examples = len(jobs.documents_of(planned.setting).ids)
    names = list(planned.variants[planned.seeds[0]])
    found = power.rule_powers(rules, names, examples, read_tables(earlier) if earlier else None, planned.seeds)
    print(f"\nexamples to decide {policy} with power {power.POWER:g}, if the models are equal")
    print_table(power_table.COLUMNS, power_table.as_rows(found), right={"tests", "needs", "has", "lacks", "power"})


@app.command()
def validate(suite: SuitePath) -> None:
    """Check a suite file and list its variants."""
    for variant in _suite(suite).variants:
        print(variant.name)


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A run's folder.", metavar="RUN")]) -> None:
    """Render the report of a finished run again."""
    from harness.report import write_report

    print(write_report(run))


@app.command()
def gate(
    policy: Annotated[Path, typer.Option(help="A policy file, such as suites/mnist.policy.yaml.")],
    run: Annotated[Path | None, typer.Argument(help="A finished run's folder.", metavar="[RUN]")] = None,
    candidate: Annotated[Path | None, typer.Option(help="In place of RUN: a folder of weights, scored first.")] = None,
    suite: Annotated[Path | None, typer.Option(help="With --candidate: the suite whose task scores it.")] = None,
    stands_for: Annotated[str | None, typer.Option(help="With --candidate: the baseline's variant that it would "
                                                        "replace; its reference by default.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="A baseline's folder, in place of the policy's.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Also write the outcome as JUnit XML.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Also write it as Markdown; by default to the GitHub step's "
                                                      "summary, where there is one.")] = None,
    out: Out = Path("results"),
    device: Device = "auto",
    workers: Workers = None,
    allow_code: AllowCode = False,
) -> None:
    """Judge a run by a policy. Exit codes: 0 pass, 3 fail, 4 inconclusive, 5 incomplete, stale or not comparable.

    The outcome is on stdout and, whole, in the run's gate.json. 1 is a crash and 2 bad usage, neither a verdict.

    With --candidate, a folder of weights is scored as the variant 'candidate' of a run of its own, and judged against
    the baseline's stored results, example by example: the baseline is not run again.
    """
    from harness.gate.banner import banner
    from harness.gate.junit import junit as as_junit
    from harness.gate.markdown import write_summary
    from harness.gate.release import gate_run

    if (run is None) == (candidate is None):
        raise BadInput("the gate judges one of: RUN, --candidate DIR")
    if (candidate is None) != (suite is None):
        raise BadInput("--candidate and --suite go together", hint="the suite names the task that scores the folder")
    if stands_for is not None and candidate is None:
        raise BadInput("--stands-for goes with --candidate", hint="the variants of a run stand for themselves")
    for option, target in (("--junit", junit), ("--summary", summary)):
        _make_place(option, target)
    if run is not None:
        found = gate_run(run, policy, baseline, _today())
    else:
        assert candidate is not None
        assert suite is not None
        options = _options(out, None, None, None, device, workers, allow_code)
        found = _gate_candidate(candidate, suite, options, policy, baseline, stands_for)
    print(banner(found))
    if junit:
        junit.write_text(as_junit(found), encoding="utf-8")
    write_summary(found, summary, os.environ.get("GITHUB_STEP_SUMMARY"))
    raise typer.Exit(found.exit_code)


def _make_place(option: str, target: Path | None) -> None:
    """The folder of a file that is to be written, made before the work: a verdict is not lost for it."""
    if target is None:
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BadInput(f"{option} cannot be written: {problem.strerror}", place=str(target)) from None
    if target.is_dir() or not os.access(target if target.exists() else target.parent, os.W_OK):
        raise BadInput(f"{option} cannot be written", place=str(target), hint="name a file in a folder of yours")


def _gate_candidate(
    folder: Path, suite: Path, options: Any, policy: Path, baseline: Path | None, stands_for: str | None
) -> Any:
    from harness.publish.candidate import gate_candidate
    from harness.report import write_report
    from harness.run.progress import progress

    run, found = gate_candidate(_suite(suite), folder, options, progress(), policy_path=policy, baseline=baseline,
                                stands_for=stands_for, today=_today())  # fmt: skip
    write_report(run)
    return found


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.", metavar="RUN")],
    variant: Annotated[str, typer.Argument(help="A variant that is one model.", metavar="VARIANT")],
    folder: Annotated[Path, typer.Argument(help="The folder to write, which must not exist.", metavar="DIR")],
    seed: Annotated[int | None, typer.Option(min=0, help="A seed of the run; its first by default.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16 for a language model's weights; by "
                                                   "default that of its members.")] = None,
    allow_code: AllowCode = False,
) -> None:
    """Write a variant's model as a folder with a model card: a Hugging Face checkpoint, or a network of ours."""
    from harness.publish.export import export as write
    from harness.results.run import read_run

    print(write(read_run(run), variant, folder, seed, dtype, allow_code))


@app.command("model-index")
def model_index(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.", metavar="RUN")],
    variant: Annotated[str, typer.Argument(help="A variant's name.", metavar="VARIANT")],
    name: Annotated[str | None, typer.Option(help="The model's name; the variant's by default.")] = None,
) -> None:
    """Print a variant's scores as metadata for a Hugging Face model card (the key model-index)."""
    from harness.publish.model_card import model_index as as_yaml
    from harness.results.run import read_run

    print(as_yaml(read_run(run), variant, name or variant), end="")


@app.command("eval-results")
def eval_results(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.", metavar="RUN")],
    variant: Annotated[str, typer.Argument(help="A variant's name.", metavar="VARIANT")],
    dataset: Annotated[str, typer.Option(help="The benchmark's dataset on the Hub, such as cais/hle.")],
    task: Annotated[str, typer.Option(help="The benchmark's task id.")],
    metric: Annotated[str, typer.Option(help="Which score.")] = "accuracy",
) -> None:
    """Print a variant's score as a file for .eval_results in a model's repository on the Hugging Face Hub."""
    from harness.publish.model_card import eval_results as as_yaml
    from harness.results.run import read_run

    print(as_yaml(read_run(run), variant, dataset, task, metric), end="")


@baseline.command("set")
def baseline_set(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.", metavar="RUN")],
    reason: Annotated[str, typer.Option(help="Why this run is right, for those who read it later.")],
    name: Annotated[str, typer.Option(help="The baseline's name.")] = "main",
    out: Out = Path("results"),
) -> None:
    """Make a copy of a run the baseline, in OUT/baselines/NAME, and print its folder and the sha256 for policies."""
    from harness.gate.baseline import files_sha256, set_baseline

    folder = set_baseline(run, out, name, reason, _today())
    print(f"{folder}  sha256 {files_sha256(folder)}")


@baseline.command("show")
def baseline_show(
    name: Annotated[str, typer.Option(help="The baseline's name.")] = "main", out: Out = Path("results")
) -> None:
    """Say where a baseline comes from, and whether its files are as they were set."""
    from harness.gate.baseline import baselines_folder, describe

    print(describe(baselines_folder(out) / name))


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A finished run's folder.", metavar="RUN_A")],
    second: Annotated[Path, typer.Argument(help="Another's; this one minus RUN_A is shown.", metavar="RUN_B")],
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Compare the variants of two runs by name, paired by example and seed; or say why they are not comparable.

    better and worse are of RUN_B, by accuracy, corrected for the number of variants (Benjamini-Hochberg).
    """
    from harness import compare as comparing
    from harness.display.terminal_table import print_table
    from harness.results.evidence import read_tables

    found = comparing.compare(read_tables(first), read_tables(second))
    if as_json:
        print(json.dumps(comparing.as_json(found), indent=1, allow_nan=False))
        return
    columns, rows = comparing.as_rows(found)
    print_table(columns, rows)
    for line in comparing.notes(found):
        print(line)


@app.command()
def history(
    suite: Annotated[str | None, typer.Argument(help="A suite's name; all by default.", metavar="SUITE")] = None,
    out: Out = Path("results"),
) -> None:
    """Print the scores of a suite over its runs, oldest first: the reference, and the best variant of each family."""
    from harness.display.formats import percent, percent_interval
    from harness.display.terminal_table import print_table
    from harness.results import history as of

    for run in of.newest_runs(out, suite):
        rows = [
            [entry.run_id, what, score.variant, percent(score.accuracy), percent_interval(score.low, score.high), marks]
            for entry in of.history(run)
            for marks in ["; ".join(entry.marks)]
            for what, score in [("reference", entry.reference), *sorted(entry.best.items())]
            if score
        ]
        print(f"{run.record['suite']['name']}: accuracy, and the best variant of each family")
        print_table(["run", "", "variant", "accuracy", "interval", "marks"], rows, right={"accuracy"})


@app.command("lm-eval", context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
             add_help_option=False)  # fmt: skip
def lm_eval(context: typer.Context) -> None:
    """lm-evaluation-harness with the model 'stockpot': --model stockpot --model_args config=combination.yaml ...

    All of lm-eval's own flags are passed on. A combination file names a pool of folders and a method.
    """
    from harness.lm.plugin import run_lm_eval

    run_lm_eval(context.args)


@app.command()
def doctor(
    out: Out = Path("results"),
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what this machine has, what a run will measure here, and what will be unavailable and why."""
    from harness.run.doctor import as_text, examine

    record = examine(out)
    print(json.dumps(record, indent=1) if as_json else as_text(record))


@app.command()
def schema() -> None:
    """Print the JSON schema of suite files, for editors."""
    from harness.suite.schema import json_schema

    print(json.dumps(json_schema(), indent=1))


@listing.command("methods")
def ls_methods() -> None:
    """Every method with its family, what it does and its parameters."""
    from harness.methods.method import describe_type
    from harness.registry import METHODS

    for name, method in METHODS.all().items():
        print(f"{name}  ({method.family})\n    {method.summary}\n    {method.paper}")
        for key, field in method.parameters.model_fields.items():
            default = "required" if field.is_required() else f"default {json.dumps(field.default)}"
            print(f"    {key}: {describe_type(field)}; {default}")


@listing.command("tasks")
def ls_tasks() -> None:
    """Every task that comes with Stockpot or a plug-in, and what else a suite may say under task."""
    from harness.registry import KINDS

    for kind in KINDS:
        for name, words in sorted(kind.tasks.items()):
            print(f"{name:<12}{words}")
    for kind in KINDS:
        if kind.key and kind.spec:
            print(f"{{{kind.key}: …}}  {(kind.spec.__doc__ or kind.name).splitlines()[0]}")


@listing.command("suites")
def ls_suites(folder: Annotated[Path, typer.Argument(help="Where suite files are.")] = Path("suites")) -> None:
    """The suite files of a folder, each with its question."""
    from harness.suite.suite import suite_files

    for path in suite_files(folder):
        print(f"{path}  {_suite(path).file.question}")


@listing.command("runs")
def ls_runs(out: Out = Path("results")) -> None:
    """The finished runs, oldest first within each suite."""
    from harness.results.run import read_run, runs_below

    for folder in runs_below(out):
        record = read_run(folder).record
        summary = record["summary"]
        limited = f", limited to {record['limit']} examples" if record["limit"] else ""
        print(f"{folder}  {record['status']}, {summary['ok']} of {summary['variants']} variants ok{limited}")


@cache.command("ls")
def cache_ls(out: Out = Path("results")) -> None:
    """How many artefacts of each kind the store holds, and how large they are."""
    from harness.store import Store

    sizes: dict[str, list[int]] = {}
    for folder, manifest in Store(out / ".store").artefacts():
        sizes.setdefault(manifest["kind"], []).append(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()))
    for kind, found in sorted(sizes.items()):
        print(f"{kind:<14}{len(found):>7}{sum(found) / 1e6:>10.1f} MB")


@cache.command("verify")
def cache_verify(out: Out = Path("results")) -> None:
    """Check every file of the store against the hash that was recorded; exit code 1 if one is damaged."""
    from harness.store import Store

    damaged = Store(out / ".store").damaged()
    for line in damaged:
        print(line)
    raise typer.Exit(1 if damaged else 0)


def _today() -> date:
    return datetime.now(UTC).date()


def _suite(path: Path) -> Any:
    from harness.suite.suite import read_suite

    return read_suite(path)


def _options(
    out: Path, only: str | None, limit: int | None, seed: int | None, device: str, workers: int | None,
    allow_code: bool,
) -> Any:  # fmt: skip
    from harness.run.planning import Options

    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise BadInput(f"unknown device '{device}'", given=device, choices=["auto", "cpu", "cuda", "cuda:0"])
    return Options(out, only, limit, seed, device, workers, allow_code)


def _print_summary(folder: Path, report: Path) -> int:
    """Say on stderr what came of a run; returns the exit code, which is not 0 where it has no answer."""
    from harness.results.run import has_answer, read_run, what_failed
    from harness.run.progress import duration

    finished = read_run(folder)
    record, problems = finished.record, what_failed(finished)
    summary = record["summary"]
    states = ", ".join(f"{summary[s]} {s.replace('_', ' ')}" for s in ("ok", "not_applicable", "failed") if summary[s])
    lines = [
        f"{record['suite']['name']}: {summary['variants']} variants ({states}) in {duration(record['wall_seconds'])}; "
        f"{summary['jobs_run']} jobs run, {summary['jobs_reused']} reused",
        f"  {summary['output_variants']} output-space variants share the passes of {summary['main_members']} members: "
        f"predict_seconds {summary['predict_seconds']:.2f}, combine_seconds {summary['combine_seconds']:.2f}",
        *(f"  {line}" for line in problems),
        f"  report: {report}",
    ]
    print("\n".join(lines), file=sys.stderr)
    return 0 if has_answer(finished) else NO_ANSWER


def fail(message: str, code: int) -> NoReturn:
    """Print one line and end the process."""
    print(f"stockpot: {message}", file=sys.stderr)
    raise SystemExit(code)


def main(arguments: Sequence[str] | None = None) -> None:
    """The ``stockpot`` command."""
    try:
        app(args=None if arguments is None else list(arguments))
    except BadInput as problem:
        fail(str(problem), 2)
    except KeyboardInterrupt:
        fail("stopped; what is done is kept: run the same command again to go on", 130)
