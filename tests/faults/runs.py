"""Runs of a tiny suite, in processes that are disturbed, and whether their numbers are those of an undisturbed one.

Most are forked from a process that has imported everything (and so are their workers), since a run is then a second and
not ten; some are the command itself, whose workers come from a server of processes.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import torch

from harness.cli.main import main
from harness.cli.start import end_at_once
from harness.engines import local
from harness.engines.engine import Job
from harness.report.document import write_report
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.store import Store, check_again
from harness.suite.suite import read_suite
from tests.inline import in_this_process

SUITE = """
suite: tiny
task: digits
pool:
  train: {architecture: mlp, start: shared_base, base_epochs: 1, members: 3, epochs: 1, options: {hidden: 8}}
methods: [best_single, {linear: {weights: learned}}, uniform_soup, cascade]
cost: {latency: false, memory: false, energy: false}
"""
TIMED = ("build_seconds", "members_train_seconds")
PATIENCE = 300.0
"""Seconds that a run may take, on a busy machine."""
REAPER = 36
"""PR_SET_CHILD_SUBREAPER of linux/prctl.h: what a killed run leaves behind becomes a child of this process."""


class _Forked(local._Pools):
    """Workers that are forked from the run."""

    def __init__(self, workers: int, preload: Any) -> None:
        self.workers, self.variables = workers, {}
        self.context = multiprocessing.get_context("fork")  # type: ignore[assignment]
        self.pools: dict[Any, ProcessPoolExecutor] = {}
        self.numbers, self.waits = self.context.RawArray("d", 2 * workers), {}

    def submit(self, job: Job) -> Future[Any]:
        """As ever; a signal waits meanwhile, for Python drops what is raised in the hooks of a fork.

        The command never forks: its workers come from their server.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            return super().submit(job)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def adopt_orphans() -> None:
    """Have the system hand all that runs leave behind to this process, so that none is overlooked."""
    ctypes.CDLL(None).prctl(REAPER, 1)


def warm_up(folder: Path) -> None:
    """Run the suite in this process, which imports all that runs need: those that are forked from it have that."""
    torch.set_num_threads(1)  # a fork has none of the others, and would wait for them
    (folder / "suite.yaml").write_text(SUITE)
    with in_this_process():
        plan = make_plan(read_suite(folder / "suite.yaml"), Options(out=folder / "out", workers=1))
        write_report(runner.run(plan, Tracker()))


@dataclass
class Process:
    """A run."""

    id: int
    log: Path
    code: int | None = None
    """Of its end: the exit code, or minus the signal."""
    begun: float = field(default_factory=time.monotonic)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def poll(self) -> int | None:
        if self.code is None:
            found, status = os.waitpid(self.id, os.WNOHANG)
            if found:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self, seconds: float = PATIENCE) -> int:
        """Its exit code; it is killed, and that is an error, where it takes longer."""
        end = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > end:
                os.kill(self.id, signal.SIGKILL)
                os.waitpid(self.id, 0)
                raise Fault(f"it did not end in {seconds:g} seconds")
            time.sleep(0.01)
        assert self.code is not None
        return self.code

    def workers(self) -> list[psutil.Process]:
        """The processes that do its jobs."""
        try:
            below = psutil.Process(self.id).children(recursive=True)
            return [each for each in below if "resource_tracker" not in " ".join(each.cmdline())]
        except psutil.Error:
            return []


class Fault(Exception):
    """What a run did not survive."""


def begin(folder: Path, *options: str, prepare: Callable[[], None] | None = None, command: bool = False) -> Process:
    """Begin a run of the suite in a folder.

    Args:
        folder: that has the suite, and gets the results.
        options: of ``stockpot run``.
        prepare: called in the run's process before it begins.
        command: whether it is the command itself, which ``prepare`` is called in before it is loaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    suite, log = folder / "suite.yaml", folder / f"log-{time.monotonic_ns()}"
    if not suite.exists():
        suite.write_text(SUITE)
    arguments = ["run", str(suite), "--out", str(folder / "out"), "--workers", "2", *options]
    if command:
        with open(log, "w") as out:
            line = [sys.executable, "-m", "harness.cli", *arguments]
            return Process(subprocess.Popen(line, stdout=out, stderr=out, preexec_fn=prepare).pid, log)
    if child := os.fork():
        return Process(child, log)
    code = 1
    try:
        sink = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        signal.signal(signal.SIGINT, end_at_once)  # as the command begins
        local._Pools = _Forked  # type: ignore[misc]
        check_again()
        if prepare:
            prepare()
        main(arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def finish(folder: Path, *options: str, command: bool = False) -> str:
    """Run the suite to its end, undisturbed; what it said."""
    process = begin(folder, *options, command=command)
    if process.wait():
        raise Fault(f"the next run ended with exit code {process.code}: {_last(process)}")
    return process.said()


def check_words(process: Process, *codes: int) -> None:
    """That a disturbed run ended with one of these codes, and said why in a line."""
    if "Traceback" in process.said():
        raise Fault(f"a traceback after exit code {process.code}: {_traceback(process.said())}")
    if process.code not in codes:
        raise Fault(f"exit code {process.code}: {_last(process)}")


def _traceback(said: str) -> str:
    """The first, with the line before it, in one line: the run may go on and say more."""
    lines = said.splitlines()
    first = next(place for place, line in enumerate(lines) if "Traceback" in line)
    return " | ".join(line.strip() for line in lines[max(0, first - 1) : first + 40])[:2000]


def _last(process: Process) -> str:
    return (process.said().strip().splitlines() or ["(nothing)"])[-1][:300]


def check_no_orphans(seconds: float = 60.0) -> None:
    """That no process of any run is left; to be called where all have ended.

    A server of processes that is still importing when its run ends sees that only then.
    """
    end = time.monotonic() + seconds
    while alive := [each for each in psutil.Process().children(recursive=True) if _runs(each)]:
        if time.monotonic() > end:
            names = ", ".join(f"{each.pid} {each.name()}" for each in alive)
            for each in alive:
                each.kill()
            raise Fault(f"processes are left: {names}")
        time.sleep(0.02)
    while _reaped():
        pass


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _reaped() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def check_no_temporary_files(folder: Path) -> None:
    """That the results, the store and the folders of runs have nothing but what is whole."""
    out = folder / "out"
    hidden = [path for path in out.rglob(".*") if path.name not in (".store", ".quarantine")]
    runs = [path for path in out.glob("tiny/*") if not path.is_symlink() and not (path / "run.json").is_file()]
    if hidden or runs:
        raise Fault(f"files are left: {', '.join(str(path.relative_to(out)) for path in (*hidden, *runs)[:5])}")


Numbers = tuple[pd.DataFrame, pd.DataFrame]


def numbers_of(folder: Path) -> Numbers:
    """Of the newest run: variants.csv without times, and examples.parquet."""
    found = read_run(folder / "out/tiny/latest")
    if found.record["status"] != "complete":
        raise Fault(f"the run is {found.record['status']}")
    variants = pd.read_csv(found.folder / "variants.csv", keep_default_na=False, dtype=str)
    return variants.drop(columns=list(TIMED)), pd.read_parquet(found.folder / "examples.parquet")


def check_same(folder: Path, expected: Numbers, tolerance: float = 0.0) -> None:
    """That the newest run has these numbers; with a tolerance, floats may differ by that much relative to them."""
    for name, found, wanted in zip(("variants.csv", "examples.parquet"), numbers_of(folder), expected, strict=True):
        if not tolerance and not found.equals(wanted):
            raise Fault(f"other numbers in {name}")
        if tolerance:
            try:
                pd.testing.assert_frame_equal(_as_numbers(found), _as_numbers(wanted), rtol=tolerance, atol=tolerance)
            except AssertionError as error:
                raise Fault(f"other numbers in {name}: {' '.join(str(error).split())[:200]}") from None


def _as_numbers(table: pd.DataFrame) -> pd.DataFrame:
    return table.apply(_as_number)


def _as_number(column: pd.Series) -> pd.Series:
    try:
        return pd.to_numeric(column.replace("", "nan"))
    except (ValueError, TypeError):
        return column


def check_store(folder: Path) -> None:
    """That every artefact of the store is as it was written."""
    if damaged := Store(folder / "out/.store").damaged():
        raise Fault(f"damaged artefacts: {next(iter(damaged.values()))[0]}")
