"""Parity and speed of the layer of experts on a GPU: ``python -m tests.perf.gpu_check FOLDER`` (``make gpu-check``).

Every dispatch path and transformers' block against the dense reference, forward and backward, and the table of their
times, to FOLDER/<card name>.json. Exit codes: 0 done, 1 a path fails or is too far from the reference, 2 no GPU.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import torch

from harness.environment import devices, versions
from tests.perf.experts import TOLERANCE, Cell, parity, row, table

SIZES = ((512, 2048), (2048, 2048))
EXPERTS, ACTIVE = (8, 32), (2, 4)
ROWS = 4096
ROUNDS = 7
SECONDS = 540
"""After so long no further cell is begun, and what was left out is said: a GPU is lent for ten minutes."""
NO_GPU, TOO_FAR = 2, 1


def cells(device: str, *, rows: int = ROWS, sizes: tuple[tuple[int, int], ...] = SIZES) -> Iterator[Cell]:
    """All of them, the smallest first, forward before forward and backward."""
    for (inputs, hidden), experts, k, dtype, backward in product(sizes, EXPERTS, ACTIVE, TOLERANCE, (False, True)):
        yield Cell(inputs, hidden, experts, k, rows, dtype, backward, device)


def check(chosen: list[Cell], *, rounds: int, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Parity of the cells with a backward pass, then times of all; ``left_out`` names those that time was short for."""
    begin = time.monotonic()
    record: dict[str, Any] = {"parity": [], "times": [], "left_out": []}
    for kind, make, those in (
        ("parity", parity, [cell for cell in chosen if cell.backward]),
        ("times", lambda cell: row(cell, rounds), chosen),
    ):
        for cell in those:
            if time.monotonic() - begin > seconds:
                record["left_out"].append(f"{kind} of {cell}")
                continue
            found = make(cell)
            record[kind].append(found)
            say(_words(found))
            if cell.device != "cpu":
                torch.cuda.empty_cache()
    record["seconds"] = time.monotonic() - begin
    return record


def _words(found: dict[str, Any]) -> str:
    if "gaps" in found:
        worst = max(found["gaps"], key=found["gaps"].__getitem__)
        verdict = "equal" if found["held"] else "NOT EQUAL"
        failed = "".join(f"; {name} failed: {why}" for name, why in found["failed"].items())
        gap = f"at most {found['gaps'][worst]:.1e} ({worst}), bound {found['bound']:g}"
        return f"{verdict}: {found['cell']}: {gap}{failed}"
    if found["ratio"] is None:
        return f"{found['cell']}: {found['choice']}; transformers runs it in no way"
    return f"{found['cell']}: {found['choice']}, {found['ratio']:.2f} times as fast as {found['best_of_transformers']}"


def write(record: dict[str, Any], folder: Path, card: str) -> Path:
    """The record with what it was measured on, in a file of the card's name."""
    facts = {"card": card, "devices": devices(), "versions": versions(), "datetime": datetime.now(UTC).isoformat()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{re.sub(r'[^a-z0-9]+', '-', card.lower()).strip('-')}.json"
    path.write_text(json.dumps({**facts, **record}, indent=1) + "\n", encoding="utf-8")
    return path


def main(folder: str) -> int:
    """Check the first GPU; the exit code."""
    if not torch.cuda.is_available():
        print("there is no GPU here: nothing was checked", file=sys.stderr)
        return NO_GPU
    record = check(list(cells("cuda")), rounds=ROUNDS, seconds=SECONDS, say=print)
    print("\n".join(["", *table(record["times"]), ""]))
    for cell in record["left_out"]:
        print(f"left out, for time was short: {cell}")
    print(f"written to {write(record, Path(folder), torch.cuda.get_device_name())}")
    return 0 if all(each["held"] for each in record["parity"]) else TOO_FAR


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
