"""Disturb some hundred runs, and write results/reference/faults.md: how many of them ended with identical numbers.

FAULTS is how many times as many there are as in the table that is committed (1 by default; 0.05 to try), SEED what
all is drawn from, AT_ONCE how many runs go on at the same time, ONLY the kinds to try (kills,pairs); after MINUTES no
other case is begun. With STATE, a file, what was survived in an earlier call with it is not done again, all else is.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from harness import environment
from tests.faults import damage, jobs, kills
from tests.faults.case import Case, Undisturbed
from tests.faults.runs import Fault, adopt_orphans, check_no_orphans, finish, numbers_of, warm_up
from tests.faults.table import write_table

ROOT = Path(__file__).parents[2]
COMMAND = 16
"""Every so many of them is the command itself, not a forked run."""


def cases(times: float) -> Iterator[tuple[str, Case]]:
    """All disturbances, each with the name of its kind."""

    def some(count: int) -> range:
        return range(max(1, round(count * times)))

    for number in some(200 // kills.KILLS):
        yield "kills", partial(kills.killed, command=number % COMMAND == 5)
    for number in some(50):
        yield "pairs", partial(kills.paired, command=number % (2 * COMMAND) == 1)
    for number in some(50):
        yield "corruptions", partial(damage.damaged, number=number, command=number % (2 * COMMAND) == 1)
    for number in some(20):
        disk = damage.limited if number % 2 else damage.full
        yield "full disks", partial(disk, command=number % COMMAND in (6, 7))
    for number in some(20):
        yield "out of memory", partial(jobs.out_of_memory, number=number)
    for number in some(20):
        yield "members", partial(jobs.bad_member, number=number)


def main() -> int:
    """Disturb runs; 0 where all of them survived."""
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    times, seed = float(os.environ.get("FAULTS", "1")), int(os.environ.get("SEED", "0"))
    at_once = int(os.environ.get("AT_ONCE", environment.cores()))
    begin = time.perf_counter()
    until = begin + 60 * float(os.environ.get("MINUTES", "inf"))
    todo = list(enumerate(cases(times)))
    if only := os.environ.get("ONLY"):
        todo = [each for each in todo if each[1][0] in only.split(",")]
    random.Random(seed).shuffle(todo)  # long ones beside short ones
    state = Path(os.environ["STATE"]) if "STATE" in os.environ else None
    known = [json.loads(line) for line in state.read_text().splitlines()] if state and state.exists() else []
    survived = {number for number, _, _, fault in known if not fault}
    todo = [each for each in todo if each[0] not in survived]
    print(f"{len(todo)} cases of seed {seed}, {at_once} at once", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        warm_up(Path(place))
        adopt_orphans()
        undisturbed = _undisturbed(Path(place) / "undisturbed")
        found = multiprocessing.get_context("fork").SimpleQueue()
        lanes = [multiprocessing.get_context("fork").Process(target=_lane, args=(todo[lane::at_once], seed,
                 Path(place) / f"lane-{lane}", undisturbed, until, found)) for lane in range(at_once)]  # fmt: skip
        for lane in lanes:
            lane.start()
        left_out = 0
        for done in range(1, len(todo) + 1):
            number, kind, counts, fault = found.get()
            left_out += not counts
            if counts:
                known.append([number, kind, counts, fault])
                if state:
                    state.write_text("".join(json.dumps(each) + "\n" for each in known))
            if fault or done % 20 == 0:
                words = fault or f"{done} of {len(todo)} cases in {time.perf_counter() - begin:.0f} s"
                print(words, file=sys.stderr, flush=True)
        for lane in lanes:
            lane.join()
    took = time.perf_counter() - begin
    if left_out:
        print(f"{left_out} cases were not begun", file=sys.stderr)
    table = Path(os.environ.get("TABLE", ROOT / "results/reference/faults.md"))
    write_table(table, known, seed=seed, seconds=took, at_once=at_once)
    print(table.read_text(), end="")
    return int(any(fault for _, _, _, fault in known))


def _undisturbed(folder: Path) -> Undisturbed:
    finish(folder, command=True)
    numbers = numbers_of(folder)
    begin = time.perf_counter()
    finish(folder.with_name("forked"))
    seconds = time.perf_counter() - begin
    check_no_orphans()
    print(f"a forked run takes {seconds:.1f} s", file=sys.stderr, flush=True)
    return Undisturbed(folder, numbers, seconds)


def _lane(
    todo: list[tuple[int, tuple[str, Case]]], seed: int, place: Path, undisturbed: Undisturbed, until: float, found: Any
) -> None:
    """Cases one after the other; what all of them start has this process above it."""
    adopt_orphans()
    for number, (kind, case) in todo:
        if time.perf_counter() > until:
            found.put((number, kind, {}, None))
            continue
        folder = place / str(number)
        folder.parent.mkdir(exist_ok=True)
        try:
            outcome = case(folder, random.Random(f"{seed} {number}"), undisturbed), None
        except Fault as fault:
            outcome = {"not survived": 1}, f"{kind}, case {number} of seed {seed}: {fault}"
        except Exception:
            outcome = {"not survived": 1}, f"{kind}, case {number} of seed {seed}: {traceback.format_exc()}"
        if outcome[1] and (keep := os.environ.get("KEEP")):
            shutil.copytree(folder, Path(keep) / f"{kind}-{number}", symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        found.put((number, kind, *outcome))


if __name__ == "__main__":
    sys.exit(main())
