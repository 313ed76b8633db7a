"""results/reference/fuzz.md: how many damaged inputs of each sort were read, and what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness import environment
from tests.fuzz.fuzzing import Count
from tests.fuzz.sorts import SORTS
from tests.fuzz.watch import BYTES, SECONDS

HEADER = (
    "| sort | what is damaged | inputs | taken | refused | faults | undamaged, s | slowest, s | most memory, MB |",
    "|---|---|---:|---:|---:|---:|---:|---:|---:|",
)


def row(count: Count) -> str:
    """A line of the table."""
    return _line(count.sort, SORTS[count.sort].what, [count])


def write_table(path: Path, counts: Sequence[Count], numbers: range) -> None:
    """Write the table; only what was counted is in it.

    Args:
        path: of the file.
        counts: of every sort.
        numbers: of the inputs, the same for each sort.
    """
    machine = environment.machine()
    faults = [(count.sort, *fault) for count in counts for fault in count.faults]
    lines = [
        "# Damaged inputs",
        "",
        "`make fuzz` writes whole inputs of each sort, damages one file of them at random (bytes flipped, cut off or "
        "doubled; values that no one would write; lost keys; YAML that asks for code; headers and archives that "
        "claim gigabytes) and has the code of the commands read it. An input is taken, or refused in one line, as the "
        "command then ends with exit code 2. Anything else is a fault: a traceback, any use of the network, more than "
        f"{BYTES / 1e9:g} GB, or {SECONDS:g} s more than the same takes undamaged. Seconds are of a processor, and "
        "memory is what an input adds to the process.",
        "",
        *HEADER,
        *map(row, counts),
        _line("**all**", "", counts),
        "",
        *(f"- fault: {sort} {number} ({file}): {' '.join(reading.words.split())[:200]}"
          for sort, number, file, reading in faults[:SHOWN]),
        *([""] if faults else []),
        f"Inputs {numbers.start} to {numbers.stop - 1} of each sort (`python -m tests.fuzz {len(numbers)} "
        f"{numbers.start}` makes the same again), on {machine['cpu']}.",
    ]  # fmt: skip
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


SHOWN = 5
"""Faults that the table tells of; the program prints them all."""


def _line(sort: str, what: str, counts: Sequence[Count]) -> str:
    readings = [reading for count in counts for reading in count.readings]
    came = [sum(each.outcome == outcome for each in readings) for outcome in ("taken", "refused", "fault")]
    seconds = (max(count.usual for count in counts), max((each.seconds for each in readings), default=0.0))
    most = max((each.bytes for each in readings), default=0)
    numbers = (len(readings), *came)
    cells = (sort, what, *(f"{each:,}" for each in numbers), *(f"{each:.2f}" for each in seconds), f"{most / 1e6:.0f}")
    return f"| {' | '.join(cells)} |"
