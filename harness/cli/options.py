"""What several commands take: their shared options, and what is made of them."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.errors import BadInput

SuitePath = Annotated[Path, typer.Argument(help="A suite file, such as suites/mnist.yaml.", metavar="SUITE")]
Out = Annotated[Path, typer.Option(help="Folder of the results; artefacts are kept in its .store.")]
Only = Annotated[str | None, typer.Option(help="Only variants of this method or name ('linear*'), and the reference.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N test examples: a trial run, never a verdict.")]
Seed = Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="This seed instead of the suite's.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, or one of several GPUs such as cuda:1.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes; one for each core by default.")]
EngineName = Annotated[str, typer.Option("--engine", help="How jobs run; 'ls engines' lists what there is.")]
JobTimeout = Annotated[float | None, typer.Option(min=0, metavar="SECONDS", help="End a job that takes longer, and "
    "record it as failed; 0: never. By default a day, or 100 times what was expected where that is more.")]  # fmt: skip
ModelMemory = Annotated[str | None, typer.Option("--memory", metavar="SIZE", help="What all workers "
    "together may hold, such as 8GB: a merge or language model that does not fit is built in a file and read layer by "
    "layer as it runs, with the same numbers. By default a model may take half of what is free.")]  # fmt: skip
ShardOf = Annotated[str | None, typer.Option("--shard", metavar="I/N", help="Only the I-th of N parts of the jobs, "
    "from 1/N to N/N, for a batch system such as Slurm; merge-runs puts all parts together.")]  # fmt: skip
SharedStore = Annotated[str | None, typer.Option("--store", metavar="URL", help="Share artefacts with other machines "
    "through this place: s3://bucket/folder, or whatever else fsspec opens. What one has made the others do not make "
    "again; --out's .store is then a copy of what was needed here.")]  # fmt: skip
AllowCode = Annotated[bool, typer.Option("--allow-code", help="Run the functions and scripts that the suite and "
                                                              "its task files name: read them first.")]  # fmt: skip


def load_suite(path: Path) -> Any:
    """The suite in a file, whose names are looked up among the tasks and networks that there are."""
    from harness.suite.suite import read_suite

    return read_suite(path)


def make_options(
    out: Path, only: str | None, limit: int | None, seed: int | None, device: str, workers: int | None,
    allow_code: bool, engine: str = "local", job_timeout: float | None = None, memory: str | None = None,
    store: str | None = None,
) -> Any:  # fmt: skip
    """``harness.run.plan.Options`` from what the commands share."""
    from harness.registry import ENGINES
    from harness.run.plan import Options

    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise BadInput(f"unknown device '{device}'", given=device, choices=["auto", "cpu", "cuda", "cuda:0"])
    if job_timeout is not None and not math.isfinite(job_timeout):
        raise BadInput(f"bad --job-timeout '{job_timeout}'", hint="it takes seconds; 0 is for no limit")
    ENGINES.get(engine).check()
    room = None if memory is None else memory_bytes(memory)
    return Options(out, only, limit, seed, device, workers, allow_code, engine, job_timeout, room, store)


def today() -> date:
    """The date in UTC: what exceptions of policies expire by."""
    return datetime.now(UTC).date()


def memory_bytes(text: str) -> int:
    """The bytes that ``--memory`` names, such as 24GB."""
    return size_in_bytes(text, "--memory")


def size_in_bytes(text: str, option: str) -> int:
    """The bytes that an option names, such as 24GB."""
    from harness.display.formats import read_bytes

    try:
        return read_bytes(text)
    except ValueError as problem:
        raise BadInput(f"bad {option} '{text}'; {problem}") from None
