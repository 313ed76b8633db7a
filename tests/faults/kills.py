"""Kills at random moments: of runs, of their workers, by Ctrl-C and by SIGTERM; and pairs of runs on one store."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from tests.faults.case import Undisturbed
from tests.faults.runs import (
    Fault,
    Process,
    begin,
    check_no_orphans,
    check_no_temporary_files,
    check_same,
    check_store,
    check_words,
    finish,
)

HOW = ("SIGKILL of the run", "SIGKILL of a worker", "Ctrl-C", "SIGTERM")
KILLS = 5
"""In one folder, each of a run that continues the one before it."""
ENDS = {"SIGKILL of the run": -signal.SIGKILL, "Ctrl-C": 130, "SIGTERM": 143}


def killed(folder: Path, draws: random.Random, undisturbed: Undisturbed, *, command: bool = False) -> dict[str, int]:
    """Kills of runs that continue each other, then one that nothing befalls."""
    done: dict[str, int] = {}
    place, killed_here = 0, list[int]()
    while sum(done.values()) < KILLS:
        how = draws.choice(HOW)
        process = begin(folder / str(place), command=command)
        time.sleep(draws.uniform(0, 1) * undisturbed.seconds * (4 if command else 1))
        if not _kill(process, how, draws):
            place += 1  # it was done before: the next begins anew
            continue
        done[how] = done.get(how, 0) + 1
        process.wait()
        _check(process, how)
        check_no_orphans()
        killed_here = [*killed_here, place] if how == "SIGKILL of the run" else killed_here
        if place not in killed_here:  # what a killed run has left the next one removes, once it has begun
            check_no_temporary_files(folder / str(place))
    for each in sorted(folder.iterdir()):
        finish(each, command=command)
        check_no_orphans()
        check_same(each, undisturbed.numbers)
        check_no_temporary_files(each)
        check_store(each)
    return done


def _kill(process: Process, how: str, draws: random.Random) -> bool:
    """Whether there was something to kill."""
    if how == "SIGKILL of a worker":
        workers = process.workers()
        while not workers and process.poll() is None:  # it has none in its first second and in its last
            time.sleep(0.01)
            workers = process.workers()
        if process.poll() is not None:
            return False
        draws.choice(workers).kill()
        return True
    if process.poll() is not None:
        return False
    number = {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM}.get(how, signal.SIGKILL)
    os.kill(process.id, number)
    return True


def _check(process: Process, how: str) -> None:
    if how == "SIGKILL of a worker":
        check_words(process, 0)
    else:  # a signal may come when all is done, or before the command listens
        early = {"Ctrl-C": -signal.SIGINT, "SIGTERM": -signal.SIGTERM}.get(how, 0)
        if "Traceback" in process.said() and _was_loading(process):
            return
        check_words(process, ENDS[how], 0, early)


def _was_loading(process: Process) -> bool:
    """Whether Ctrl-C came while Python was importing: before the command's own code, nothing can be said of it."""
    said = process.said()
    return process.code == -signal.SIGINT and "KeyboardInterrupt" in said and "tiny:" not in said


def paired(folder: Path, draws: random.Random, undisturbed: Undisturbed, *, command: bool = False) -> dict[str, int]:
    """Two runs at once that share all they write."""
    first = begin(folder, command=command)
    time.sleep(draws.uniform(0, 1) ** 2 * undisturbed.seconds)
    second = begin(folder, command=command)
    for process in (first, second):
        process.wait()
        check_words(process, 0)
    check_no_orphans()
    finished = [path for path in (folder / "out/tiny").iterdir() if not path.is_symlink()]
    if len(finished) != 2:
        raise Fault(f"{len(finished)} runs of two")
    latest = folder / "out/tiny/latest"
    for path in finished:
        latest.unlink()
        latest.symlink_to(path.name)
        check_same(folder, undisturbed.numbers)
    check_no_temporary_files(folder)
    check_store(folder)
    return {"pair": 1}
