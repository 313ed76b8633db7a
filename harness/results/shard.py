"""The record of a shard: a part of a run, whose folder holds no results; ``merge-runs`` makes those of all shards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.store import read_json, write_json

SHARD = "shard.json"
VERSION = 1

SHARD_FIELDS = {
    "version": "of this file",
    "status": "part: never a run",
    "number": "which of the shards it is, from 1",
    "of": "how many there are",
    "run_id": "the name of its folder",
    "started": "UTC, ISO 8601",
    "wall_seconds": "from the start until all of its jobs were done",
    "suite": "{name, path, digest, yaml}: the suite file as it was read",
    "task": "the digest of the task's content",
    "seeds": "that were run",
    "limit": "--limit, or null",
    "only": "--only, or null",
    "seed": "--seed, or null",
    "device": "cpu or cuda",
    "plan": "the digest of the keys of all variants: of the suite, its members, the code and the versions of libraries",
    "store": "where its artefacts are, as seen from its folder",
    "git_commit": "of the code, with + where files differ from it",
    "machine": "processor, cores, memory",
    "machine_digest": "what costs depend on: it is in their keys",
    "devices": "the CUDA devices, or the CPU",
    "unavailable": "{cost: why it cannot be measured on the machine, or null}",
    "versions": "of Python, Stockpot and the libraries that compute",
    "engine": "{name, workers, threads_per_worker}",
    "jobs": "{planned, run}: how many are the shard's, and how many of these this command ran",
    "errors": "{job: why it failed}",
}
"""The fields of shard.json."""

NUMBERED = re.compile(r"0*([1-9]\d{0,5})/0*([1-9]\d{0,5})")


@dataclass(frozen=True)
class Part:
    """Which part of a run: shard ``number``, from 1, of ``of``."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


@dataclass(frozen=True)
class Shard:
    """A shard that came to its end."""

    folder: Path
    record: dict[str, Any]
    """shard.json."""

    @property
    def part(self) -> Part:
        return Part(self.record["number"], self.record["of"])

    @property
    def store(self) -> Path:
        """The folder of the store that it wrote to."""
        return (self.folder.resolve() / self.record["store"]).resolve()

    def __str__(self) -> str:
        return f"shard {self.part} ({self.folder})"


def read_part(text: str) -> Part:
    """``i/n``, as ``--shard`` takes it.

    Raises:
        BadInput: anything else, or an i that is not among 1 to n.
    """
    if not (found := NUMBERED.fullmatch(text)) or int(found[1]) > int(found[2]):
        hint = "it takes i/n, the i-th of n, counted from 1: --shard 1/4 to --shard 4/4 (sbatch --array=1-4)"
        raise BadInput(f"bad --shard '{text}'", hint=hint)
    return Part(int(found[1]), int(found[2]))


def part_folder(part: Part) -> str:
    """What the name of a shard's folder ends with."""
    return f"-shard-{part.number}-of-{part.of}"


def write_shard(folder: Path, record: dict[str, Any]) -> None:
    """Write shard.json: the folder is a shard's from now on."""
    unfinished = folder / f".{SHARD}"
    write_json(unfinished, record)
    unfinished.rename(folder / SHARD)


def read_shard(folder: Path) -> Shard:
    """A shard, from its folder.

    Raises:
        BadInput: a folder that is no shard's, or whose shard.json is not what was written.
    """
    folder = Path(folder)
    place = str(folder)
    if not (folder / SHARD).is_file():
        if (folder / "run.json").is_file():
            raise BadInput("this run is whole: there is nothing to merge", place=place)
        hint = "name the folders that 'stockpot run SUITE --shard i/n' printed"
        raise BadInput(f"no {SHARD} in {folder}", place=place, hint=hint)
    try:
        record = read_json(folder / SHARD)
    except (OSError, ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not _is_whole(record):
        raise BadInput(f"{SHARD} is not what a shard writes", place=place, hint="run this shard again")
    if record["version"] != VERSION:
        raise BadInput(f"a shard of version {record['version']}; this stockpot reads {VERSION}", place=place)
    return Shard(folder, record)


_TYPES: dict[type, tuple[str, ...]] = {
    int: ("version", "number", "of"),
    str: ("status", "run_id", "started", "task", "device", "plan", "store", "machine_digest"),
    dict: ("suite", "machine", "versions", "engine", "unavailable", "errors", "jobs"),
    list: ("seeds", "devices"),
    float: ("wall_seconds",),
}


def _is_whole(record: dict[str, Any]) -> bool:
    """Whether it has all that merging reads, each of its type."""
    return (
        record.keys() == SHARD_FIELDS.keys()
        and all(type(record[name]) is kind for kind, names in _TYPES.items() for name in names)
        and record["status"] == "part"
        and 1 <= record["number"] <= record["of"]
        and all(type(record["suite"].get(name)) is str for name in ("name", "path", "digest", "yaml"))
        and all(type(record["jobs"].get(name)) is int for name in ("planned", "run"))
        and all(isinstance(error, str) for error in record["errors"].values())
        and all(isinstance(each, dict) for each in record["devices"])
        and all(type(each.get("memory_bytes")) is int for each in (record["machine"], *record["devices"]))
    )


def why_no_run(folder: Path) -> BadInput | None:
    """Why a folder is not that of a run, where it is a shard's."""
    if not (folder / SHARD).is_file():
        return None
    problem = "this is a shard, a part of a run: it has no results of its own"
    return BadInput(problem, place=str(folder), hint="'stockpot merge-runs SHARD...' makes one run of all shards")
