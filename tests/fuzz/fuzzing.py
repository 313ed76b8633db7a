"""Many damaged inputs of a sort, one after the other in one process: each is read, and what came of it is counted."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import BadInput
from tests.fuzz.sorts import SORTS, Sort, spoil
from tests.fuzz.watch import Reading, silent, watch


@dataclass
class Count:
    """What came of all inputs of a sort."""

    sort: str
    readings: list[Reading] = field(default_factory=list)
    faults: list[tuple[int, str, Reading]] = field(default_factory=list)
    """Each with its number, by which it is made again, and the name of the damaged file."""
    usual: float = 0.0
    """Seconds that undamaged inputs take, at most."""


def fuzz(sort: str, numbers: range, place: Path, keep: Path | None = None) -> Count:
    """Read the inputs of these numbers.

    Args:
        sort: a name of ``SORTS``.
        numbers: each makes one input, the same at every call.
        place: an empty folder to work in.
        keep: where the files of faults are copied to.
    """
    whole = place / "whole"
    whole.mkdir(parents=True)
    SORTS[sort].write(whole)
    count = Count(sort, usual=_usual_seconds(SORTS[sort], whole, place / "input"))
    read = _reader(sort, whole, place / "input", count.usual)
    for number in numbers:
        file, reading = read(number)
        count.readings.append(reading)
        if reading.outcome == "fault":
            count.faults.append((number, file.name, reading))
            if keep is not None and file.is_file() and file.stat().st_size < 2**20:
                keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, keep / f"{sort.replace(' ', '-')}-{number}-{file.name}")
    return count


def fuzz_alone(sort: str, numbers: range, keep: Path | None) -> Count:
    """``fuzz`` in a process that is there for it: what one sort imports, or holds on to, is not another's."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        return fuzz(sort, numbers, Path(place), keep)


def _reader(sort: str, whole: Path, folder: Path, usual: float) -> Callable[[int], tuple[Path, Reading]]:
    def read(number: int) -> tuple[Path, Reading]:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        file = spoil(random.Random(f"{sort} {number}"), folder, SORTS[sort])
        return file, watch(lambda: SORTS[sort].read(folder, file), usual)

    return read


def _usual_seconds(sort: Sort, whole: Path, folder: Path) -> float:
    """The most that undamaged files take, one of each pattern; the first imports and compiles, and does not count."""
    first, *others = (min(whole.glob(pattern)) for pattern in sort.files)
    took = []
    for file in (first, *others, first):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        begin = time.process_time()
        with silent(), contextlib.suppress(BadInput):
            sort.read(folder, folder / file.relative_to(whole))
        took.append(time.process_time() - begin)
    return max(took[1:])
