"""The verbs that judge runs by policies and set what they are compared with."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.options import AllowCode, Device, EngineName, Out, Workers, load_suite, make_options, today
from harness.errors import BadInput
from harness.exhausted import full_disk, said_of_room
from harness.folders import write_whole

commands = typer.Typer()
baselines = typer.Typer(help="What gates compare with.", no_args_is_help=True)
commands.add_typer(baselines, name="baseline")


@commands.command()
def gate(
    policy: Annotated[Path, typer.Option(help="A policy file, such as suites/mnist.policy.yaml.")],
    run: Annotated[Path | None, typer.Argument(help="A finished run's folder.", metavar="[RUN]")] = None,
    candidate: Annotated[Path | None, typer.Option(help="In place of RUN, scored first: weights, or for a pool of "
                                                       "predictions one file.")] = None,
    suite: Annotated[Path | None, typer.Option(help="With --candidate: the suite whose task scores it.")] = None,
    stands_for: Annotated[str | None, typer.Option(help="With --candidate: the baseline's variant that it would "
                                                        "replace; its reference by default.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="A baseline's folder, in place of the policy's.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Also write the outcome as JUnit XML.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Also write it as Markdown; by default to the GitHub step's "
                                                      "summary, where there is one.")] = None,
    out: Out = Path("results"),
    device: Device = "auto",
    engine: EngineName = "local",
    workers: Workers = None,
    allow_code: AllowCode = False,
) -> None:
    """Judge a run by a policy. Exit codes: 0 pass, 3 fail, 4 inconclusive, 5 incomplete, stale or not comparable.

    The outcome is on stdout and, whole, in the run's gate.json. 1 is a crash and 2 bad usage, neither a verdict.

    With --candidate, a folder of weights, or a file of predictions where these are the suite's pool, is scored as the
    variant 'candidate' of a run of its own, and judged against the baseline's stored results, example by example: the
    baseline is not run again.
    """
    from harness.gate.banner import banner
    from harness.gate.junit import junit as as_junit
    from harness.gate.markdown import write_summary
    from harness.gate.release import gate_run
    from harness.results.damaged import reading_run

    if (run is None) == (candidate is None):
        raise BadInput("the gate judges one of: RUN, --candidate DIR")
    if (candidate is None) != (suite is None):
        raise BadInput("--candidate and --suite go together", hint="the suite names the task that scores the folder")
    if stands_for is not None and candidate is None:
        raise BadInput("--stands-for goes with --candidate", hint="the variants of a run stand for themselves")
    for option, target in (("--junit", junit), ("--summary", summary)):
        _make_place(option, target)
    if run is not None:
        with reading_run(run):
            found = gate_run(run, policy, baseline, today())
    else:
        assert candidate is not None
        assert suite is not None
        options = make_options(out, None, None, None, device, workers, allow_code, engine)
        found = _gate_candidate(candidate, suite, options, policy, baseline, stands_for)
    print(banner(found))
    step = os.environ.get("GITHUB_STEP_SUMMARY")
    files: dict[str, Callable[[], object]] = {}
    if junit:
        files[f"--junit {junit}"] = lambda: write_whole(junit, as_junit(found))
    files[f"--summary {summary}" if summary else f"the step's summary, {step}"] = (
        lambda: write_summary(found, summary, step)
    )
    _write_each(files)
    raise typer.Exit(found.exit_code)


def _write_each(files: Mapping[str, Callable[[], object]]) -> None:
    """Write what is asked for beside the outcome; ``BadInput`` where one cannot be, after all others."""
    lost = []
    for name, write in files.items():
        try:
            write()
        except OSError as problem:
            why = said_of_room(problem) if full_disk(problem) else problem.strerror
            lost.append(f"{name} cannot be written: {why}")
    if lost:
        raise BadInput("; ".join(lost), hint="the outcome above stands, and is in the run's gate.json")


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

    run, found = gate_candidate(load_suite(suite), folder, options, progress(), policy_path=policy, baseline=baseline,
                                stands_for=stands_for, today=today())  # fmt: skip
    write_report(run)
    return found


@baselines.command("set")
def baseline_set(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.", metavar="RUN")],
    reason: Annotated[str, typer.Option(help="Why this run is right, for those who read it later.")],
    name: Annotated[str, typer.Option(help="The baseline's name.")] = "main",
    out: Out = Path("results"),
) -> None:
    """Make a copy of a run the baseline, in OUT/baselines/NAME, and print its folder and the sha256 for policies."""
    from harness.gate.baseline import files_sha256, set_baseline

    folder = set_baseline(run, out, name, reason, today())
    print(f"{folder}  sha256 {files_sha256(folder)}")


@baselines.command("show")
def baseline_show(
    name: Annotated[str, typer.Option(help="The baseline's name.")] = "main", out: Out = Path("results")
) -> None:
    """Say where a baseline comes from, and whether its files are as they were set."""
    from harness.gate.baseline import baselines_folder, describe

    print(describe(baselines_folder(out) / name))
