"""The verbs that plan and run suites."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.options import (
    AllowCode,
    Device,
    EngineName,
    JobTimeout,
    Limit,
    ModelMemory,
    Only,
    Out,
    Seed,
    ShardOf,
    SharedStore,
    SuitePath,
    Workers,
    load_suite,
    make_options,
    memory_bytes,
)
from harness.display.lines import one_line, plain_line
from harness.errors import BadInput

commands = typer.Typer()

NO_ANSWER = 5
"""The exit code of a run that has none: the gate's word for it is incomplete, with the same code."""


@commands.command()
def run(
    suites: Annotated[list[Path], typer.Argument(help="Suite files, run at once.", metavar="SUITE...")],
    out: Out = Path("results"),
    only: Only = None,
    limit: Limit = None,
    seed: Seed = None,
    device: Device = "auto",
    engine: EngineName = "local",
    workers: Workers = None,
    job_timeout: JobTimeout = None,
    memory: ModelMemory = None,
    store: SharedStore = None,
    shard: ShardOf = None,
    allow_code: AllowCode = False,
) -> None:
    """Build, score and report every variant of the suites; what earlier runs made is reused.

    The folder of each suite's run is printed on stdout. The jobs of all suites run as one list, those that measure
    last; what two suites need is made once. Run the same command again after an interruption: it continues. Ctrl-C and
    SIGTERM write what is done by then, marked as interrupted; the link latest stays where it was. Exit codes: 0 done,
    also where some variants failed, which a line on stderr counts; 5 where a run has no answer, since every variant
    failed or does not apply, or the reference did; 2 where a disk is full; 130 and 143 as those signals have it.

    With --shard the folder that is printed is a shard's, which is no run: it has no results and no report. Run all
    shards, at once or not, with one --out or each its own, and then 'stockpot merge-runs' on their folders.
    """
    from harness.cli.sharding import run_shards
    from harness.report.several import write_reports
    from harness.results.shard import read_part
    from harness.run import progress, runner
    from harness.run.planning import make_plan

    part = None if shard is None else read_part(shard)
    options = make_options(out, only, limit, seed, device, workers, allow_code, engine, job_timeout, memory, store)
    read = [load_suite(path) for path in suites]  # all of them first: a mistake in the last shall not cost an hour
    codes = set()
    plans = [make_plan(suite, options) for suite in read]
    if part is not None:
        run_shards(plans, part)
        return
    with (
        closing(runner.run_together(plans, progress.progress())) as finished,  # a signal may come between two of them
        closing(write_reports(finished, len(read))) as reports,
    ):
        for folder, report in reports:
            codes.add(print_summary(folder, report))
            print(folder)
    raise typer.Exit(max(codes))


@commands.command()
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
    engine: EngineName = "local",
    store: SharedStore = None,
    allow_code: AllowCode = False,
) -> None:
    """Say what a run would do: its jobs, what is reused, how much work and time the rest is, and what fits in memory.

    Work is in forward passes, bytes and hours, as functions of the numbers of members, variants and examples. The time
    is that of a simulated schedule on so many workers, with the share of it that they idle. With --policy also whether
    the suite's examples are enough to decide the policy's margins, rule by rule, and how many lack.
    """
    from harness.cli.forecast import print_schedule, print_work
    from harness.run.planning import make_plan

    if policy is None and earlier is not None:
        raise BadInput("--from goes with --policy")
    room = None if memory is None else memory_bytes(memory)
    options = make_options(out, only, limit, seed, device, workers, allow_code, engine, store=store)
    planned = make_plan(load_suite(suite), options)
    _print_data(planned)
    lacking = planned.missing()
    missing = {job.job.name for job in lacking}
    stages: dict[str, list[Any]] = {}
    for job in planned.jobs:
        stages.setdefault(job.stage.group, []).append(job)
    print(f"{'stage':<10}{'jobs':>6}{'reused':>8}{'to run':>8}")
    for stage, jobs in stages.items():
        todo = sum(job.job.name in missing for job in jobs)
        print(f"{stage:<10}{len(jobs):>6}{len(jobs) - todo:>8}{todo:>8}")
    print_work(planned, lacking)
    print_schedule(planned, lacking, workers)
    if planned.setting.kind.why_no_costs is None:
        _print_capacity(planned, room)
    if policy is not None:
        _print_power(planned, policy, earlier)


def _print_data(planned: Any) -> None:
    """Title and splits of the task and, where its labels have names, how many examples have each of these."""
    from harness.display.classes import class_counts
    from harness.run.stages.setting import documents_of

    task = planned.task
    print(f"data: {one_line(task.title)}")
    for split in (task.train, task.heldout, task.test):
        words = class_counts(split.labels.tolist(), getattr(task, "labels", ()))
        print(f"  {split.name} {len(split.inputs)}" + (f": {one_line(words)}" if words else ""))
    for note in documents_of(planned.setting).notes:
        print(f"  note: {one_line(note)}")
    print()


def _print_capacity(planned: Any, memory: int | None) -> None:
    from harness.display.capacity import COLUMNS, as_rows, unpredicted_words
    from harness.display.formats import amount
    from harness.display.terminal_table import print_table
    from harness.run import capacity
    from harness.run.process import process_bytes

    budget = capacity.budget_of(planned, process_bytes(planned), memory)
    found = list(capacity.capacities(planned, budget))
    record = capacity.as_record(budget, found, capacity.unpredicted(planned, found))
    print(f"\nwhat fits in {amount(budget.bytes)}B ({budget.source}), of which a process takes "
          f"{amount(budget.process)}B before it holds any model")  # fmt: skip
    if rows := as_rows(record["pools"]):
        print_table(COLUMNS, rows, right=set(COLUMNS) - {"pool"})
    if words := unpredicted_words(record):
        print(words)


def _print_power(planned: Any, policy: Path, earlier: Path | None) -> None:
    from harness.display.terminal_table import print_table
    from harness.gate import power, power_table
    from harness.gate.policy import read_policy
    from harness.results.evidence import read_tables
    from harness.run.stages.setting import documents_of

    rules = read_policy(policy)
    examples = len({each for seed in planned.seeds for each in documents_of(planned.setting.of(seed)).ids})
    names = list(planned.variants[planned.seeds[0]])
    found = power.rule_powers(rules, names, examples, read_tables(earlier) if earlier else None, planned.seeds)
    print(f"\nexamples to decide {policy} with power {power.POWER:g}, if the models are equal")
    print_table(power_table.COLUMNS, power_table.as_rows(found), right={"tests", "needs", "has", "lacks", "power"})


@commands.command()
def validate(suite: SuitePath) -> None:
    """Check a suite file and list its variants."""
    for variant in load_suite(suite).variants:
        print(variant.name)


def print_summary(folder: Path, report: Path) -> int:
    """Say on stderr what came of a run; returns the exit code, which is not 0 where it has no answer."""
    from harness.results.run import has_answer, read_run, what_failed
    from harness.run.progress import duration

    finished = read_run(folder)
    record, problems = finished.record, what_failed(finished)
    summary = record["summary"]
    states = ", ".join(f"{summary[s]} {s.replace('_', ' ')}" for s in ("ok", "not_applicable", "failed") if summary[s])
    beside = record.get("beside")
    spent = duration(record["wall_seconds"]) + (f" with {', '.join(beside)}" if beside else "")
    lines = [
        f"{record['suite']['name']}: {summary['variants']} variants ({states}) in {spent}; "
        f"{summary['jobs_run']} jobs run, {summary['jobs_reused']} reused",
        f"  {summary['output_variants']} output-space variants share the passes of {summary['main_members']} members: "
        f"predict_seconds {summary['predict_seconds']:.2f}, combine_seconds {summary['combine_seconds']:.2f}",
        *(f"  {line}" for line in problems),
        f"  report: {report}",
    ]
    print("\n".join(map(plain_line, lines)), file=sys.stderr)
    return 0 if has_answer(finished) else NO_ANSWER
