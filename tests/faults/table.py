"""results/reference/faults.md: what runs were disturbed by, and how many survived it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness import environment
from tests.faults.case import Tally

TITLES = {
    "kills": "killed at a random moment",
    "pairs": "two runs at once on one store",
    "corruptions": "a stored file is damaged",
    "full disks": "no room on the disk",
    "out of memory": "out of memory",
    "members": "a member does not get done",
}


def write_table(
    path: Path, tallies: Mapping[str, Mapping[str, Tally]], *, seed: int, seconds: float, at_once: int
) -> None:
    """Write the table; only what was counted is in it."""
    machine = environment.machine()
    lines = [
        "# Runs that are disturbed",
        "",
        "`make faults` disturbs runs of a tiny suite (three members, four variants) and runs the same command "
        "again. One has survived where the run's `variants.csv` (but for times) and `examples.parquet` are in the end "
        "those of an undisturbed run, nothing said a traceback, no process and no temporary file was left, and every "
        "artefact of the store is as it was written. Where batches were halved, floats may differ by 1e-5.",
        "",
        "| disturbance | | runs | survived |",
        "|---|---|---:|---:|",
    ]
    for kind, title in TITLES.items():
        for what, tally in sorted(tallies.get(kind, {}).items()):
            lines.append(f"| {title} | {what} | {tally.done} | {tally.survived} |")
    counts = [(each.done, each.survived) for kinds in tallies.values() for each in kinds.values()]
    lines.append(f"| **all** | | {sum(done for done, _ in counts)} | {sum(survived for _, survived in counts)} |")
    faults = [fault for kinds in tallies.values() for each in kinds.values() for fault in each.faults]
    lines += ["", *(f"- {' '.join(fault.split())[:300]}" for fault in faults), *([""] if faults else [])]
    where = f"{machine['cores']} cores ({machine['cpu']})"
    lines.append(f"Seed {seed}, {at_once} runs at once, {seconds / 60:.0f} minutes on {where}.")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
