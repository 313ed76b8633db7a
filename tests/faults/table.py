"""results/reference/faults.md: what runs were disturbed by, and how many survived it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from harness import environment

TITLES = {
    "kills": "killed at a random moment",
    "pairs": "two runs at once on one store",
    "corruptions": "a stored file is damaged",
    "full disks": "no room on the disk",
    "out of memory": "out of memory",
    "members": "a member does not get done",
}
_PLACE = re.compile(r"\S*/faults-\w+/")  # of this machine
Outcome = tuple[int, str, dict[str, int], str | None]
"""Of a case: its number, kind, the disturbances in it by what they were, and what was not survived."""


def write_table(path: Path, outcomes: Sequence[Outcome], *, seed: int, seconds: float, at_once: int) -> None:
    """Write the table; only what was counted is in it.

    Args:
        path: of the file.
        outcomes: of all cases; of one that was done again, the last counts.
        seed: that all is drawn from.
        seconds: that the last call took.
        at_once: runs that went on at the same time.
    """
    outcomes = [(number, kind, counts, fault and _PLACE.sub("", fault)) for number, kind, counts, fault in outcomes]
    last = {number: (kind, counts, fault) for number, kind, counts, fault in outcomes}
    done, survived = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for kind, counts, fault in last.values():
        for what, count in counts.items():
            done[kind, what] += count
            survived[kind, what] += 0 if fault else count
    machine = environment.machine()
    lines = [
        "# Runs that are disturbed",
        "",
        "`make faults` disturbs runs of a tiny suite (three members, four variants) and runs the same command again. "
        "A run has survived where its `variants.csv` (but for times) and `examples.parquet` are in the end those of an "
        "undisturbed run, nothing said a traceback, no process and no temporary file was left, and every artefact of "
        "the store is as it was written. Where batches were halved, floats may differ by 1e-5. Most runs are forked "
        "from a process that has imported everything, and so are their workers; one in twenty is the command itself.",
        "",
        "| disturbance | | runs | survived |",
        "|---|---|---:|---:|",
    ]
    for kind, title in TITLES.items():
        of_kind = sorted(pair for pair in done if pair[0] == kind)
        lines += [f"| {title} | {pair[1]} | {done[pair]} | {survived[pair]} |" for pair in of_kind]
    lines.append(f"| **all** | | {done.total()} | {survived.total()} |")
    lines.append("")
    lines += [f"- not survived: {' '.join(fault.split())[:1000]}" for _, _, fault in last.values() if fault]
    again = [fault for number, _, _, fault in outcomes if fault and not last[number][2]]
    lines += [f"- survived when it was done again: {' '.join(fault.split())[:1000]}" for fault in again]
    lines += [""] if lines[-1] else []
    where = f"{machine['cores']} cores ({machine['cpu']})"
    lines.append(f"Seed {seed}, {at_once} runs at once on {where}; the last call took {seconds / 60:.0f} minutes.")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
