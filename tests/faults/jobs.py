"""Jobs that run out of memory, hang, or end their own process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from harness.results.run import read_run
from harness.run.stages.prepare import Prepare
from harness.store import read_json
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

ROUNDING = 1e-5
"""What numbers may differ by where batches had other sizes, as batch_policy of run.json says."""
LIMIT = 20.0
"""Seconds that a job may take where one hangs."""


def _no_memory() -> NoReturn:
    torch.empty(1 << 60, dtype=torch.uint8)  # more than any machine's allocator gives
    raise AssertionError


def _short_of_memory(most: int, training: bool) -> None:
    """Have layers fail on more examples than a number, as they do where memory is short."""
    plain = nn.Linear.forward

    def forward(layer: nn.Linear, batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > most and training == torch.is_grad_enabled():
            _no_memory()
        return plain(layer, batch)

    nn.Linear.forward = forward  # type: ignore[method-assign]


def out_of_memory(folder: Path, draws: random.Random, undisturbed: Undisturbed, *, number: int) -> dict[str, int]:
    """Memory for fewer examples than a batch; on every fifth it is training, or one example, that finds none."""
    training, most = number % 5 == 3, 0 if number % 5 == 4 else draws.randint(1, 249)
    process = begin(folder, prepare=lambda: _short_of_memory(20 if training else most, training))
    process.wait()
    check_no_orphans()
    if training or not most:
        check_words(process, 0, 5)
        reasons = _reasons(folder)
        if not reasons or not all("there is no memory" in each and "larger machine" in each for each in reasons):
            raise Fault(f"the reasons are {reasons[:3]}")
    else:
        check_words(process, 0)
        check_same(folder, undisturbed.numbers, ROUNDING)
        details = read_json(folder / "out/tiny/latest/details.json")
        batches = {name: seeds["0"].get("batch") for name, seeds in details.items()}
        if not all(batch and batch <= most for batch in batches.values()):
            raise Fault(f"the batches are {batches}, and {most} examples have memory")
        if "memory ran out" not in (folder / "out/tiny/latest/report.md").read_text():
            raise Fault("the report does not say that memory ran out")
    finish(folder)
    check_same(folder, undisturbed.numbers, 0.0 if training or not most else ROUNDING)
    check_no_temporary_files(folder)
    check_store(folder)
    return {"training" if training else "one example" if not most else "a batch": 1}


def _reasons(folder: Path) -> list[str]:
    rows = read_run(folder / "out/tiny/latest").variants
    return [str(each) for each in rows.loc[rows["status"] == "failed", "reason"]]


def _sleep(_: Any) -> None:
    time.sleep(3600)


def _stop(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _start_others(_: Any) -> None:
    for apart in (False, True):
        subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(3600)"], start_new_session=apart)
    time.sleep(3600)


def _compute_for_ever(_: Any) -> None:
    (10**7) ** (10**7)  # in C, where Python hears no signal


def _exit(_: Any) -> None:
    os._exit(0)


def _killed(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fault_of_memory(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _leave(_: Any) -> None:
    sys.exit(0)


def _raise(_: Any) -> None:
    raise MemoryError("\x1b[31m" + "no" * 100_000)


MEMBERS: dict[str, tuple[Callable[[Any], None], str]] = {
    "sleeps": (_sleep, "its time limit"),
    "is stopped": (_stop, "its time limit"),
    "starts processes and sleeps": (_start_others, "its time limit"),
    "computes for ever": (_compute_for_ever, "its time limit"),
    "ends its process": (_exit, "its process died"),
    "kills its process": (_killed, "its process died"),
    "breaks its process": (_fault_of_memory, "its process died"),
    "calls sys.exit(0)": (_leave, "SystemExit"),
    "raises": (_raise, "MemoryError"),
}


def bad_member(folder: Path, draws: random.Random, undisturbed: Undisturbed, *, number: int) -> dict[str, int]:
    """One member does not get done: a recorded reason, and all else goes on; then it does."""
    name = sorted(MEMBERS)[number % len(MEMBERS)]
    act, reason = MEMBERS[name]
    chosen, plain = draws.randrange(3), Prepare.run

    def perform(stage: Prepare) -> None:
        if stage.member.name.endswith(str(chosen)):
            act(stage)
        plain(stage)

    def prepare() -> None:
        Prepare.run = perform  # type: ignore[method-assign]

    limit = LIMIT if reason == "its time limit" else 0
    process = begin(folder, "--job-timeout", str(limit), prepare=prepare)
    process.wait()
    check_no_orphans()
    check_words(process, 0, 5)
    _check_reasons(folder, process, reason)
    finish(folder)
    check_same(folder, undisturbed.numbers)
    check_no_temporary_files(folder)
    check_store(folder)
    return {name: 1}


def _check_reasons(folder: Path, process: Process, reason: str) -> None:
    reasons = _reasons(folder)
    if not reasons or not all(reason in each and len(each) < 2000 for each in reasons):
        raise Fault(f"the reasons are {reasons[:3]}")
    if len(reasons) == len(read_run(folder / "out/tiny/latest").variants) and "member/" in process.said():
        raise Fault("nothing went on")
