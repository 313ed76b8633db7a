"""Many damaged inputs of a sort, one after the other in one process: each is read, and what came of it is counted."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable, Iterator
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


def fuzz(sort: str, numbers: range, place: Path, keep: Path | None = None) -> Count:
    """Read the inputs of these numbers.

    Args:
        sort: a name of ``SORTS``.
        numbers: each makes one input, the same at every call.
        place: an empty folder to work in.
        keep: where the files of faults are copied to.
    """
    count, whole = Count(sort), place / "whole"
    whole.mkdir(parents=True)
    SORTS[sort].write(whole)
    _read_whole(SORTS[sort], whole, place / "input")  # imports and compiles what readers need: no input's fault
    read = _reader(sort, whole, place / "input")
    for number in numbers:
        file, reading = read(number)
        count.readings.append(reading)
        if reading.outcome == "fault":
            count.faults.append((number, file.name, reading))
            if keep is not None and file.is_file() and file.stat().st_size < 2**20:
                keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, keep / f"{sort.replace(' ', '-')}-{number}-{file.name}")
    return count


def _reader(sort: str, whole: Path, folder: Path) -> Callable[[int], tuple[Path, Reading]]:
    def read(number: int) -> tuple[Path, Reading]:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        file = spoil(random.Random(f"{sort} {number}"), folder, SORTS[sort])
        return file, watch(lambda: SORTS[sort].read(folder, file))

    return read


def _read_whole(sort: Sort, whole: Path, folder: Path) -> None:
    """Read each file undamaged, however long that takes; output goes nowhere."""
    for file in _files(sort, whole):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        with silent(), contextlib.suppress(BadInput):
            sort.read(folder, folder / file.relative_to(whole))


def _files(sort: Sort, whole: Path) -> list[Path]:
    return sorted(file for pattern in sort.files for file in whole.glob(pattern))


def whole_inputs(place: Path) -> Iterator[tuple[str, Path, Reading]]:
    """Every file of every sort undamaged."""
    for name, sort in SORTS.items():
        whole = place / name
        whole.mkdir(parents=True)
        sort.write(whole)
        for file in _files(sort, whole):
            folder = place / "copy"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(whole, folder)
            copy = folder / file.relative_to(whole)
            yield name, copy, watch(lambda: sort.read(folder, copy))  # noqa: B023 (called at once)
