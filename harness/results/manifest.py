"""The manifest of a finished run: the sha256 and the size of every file that holds its results.

It is written when all of these are there but run.json, which comes last: a folder with run.json is whole, and has its
manifest, unless it is from before there were any. Reports, figures and verdicts are made of these files, and made
again at will: they are not in it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.errors import BadInput
from harness.folders import sync, write_whole
from harness.keys import file_digest
from harness.store import as_text, read_json, write_json

MANIFEST = "manifest.json"
VERSION = 1

RECORD = "run.json"
ALWAYS = (RECORD, "variants.csv", "details.json", "scores.parquet", "comparisons.parquet", "examples.parquet")
SOMETIMES = ("measures.parquet", "intermediate.parquet", "correlation.csv", "correlation.json", "curves.json")
"""Of the tasks, methods and studies that have them."""
FILES = (*ALWAYS, *SOMETIMES)
"""The files of a run's folder that hold its results."""

MANIFEST_FIELDS = {
    "version": "of this file",
    "files": "{name: {sha256, bytes}}: of every file of the run that holds results; reports are made of these",
}
"""The fields of manifest.json."""


def finish(folder: Path, record: Any) -> None:
    """Write manifest.json and then, as the last file of a run's folder, run.json: each is there whole or not at all.

    Args:
        folder: with all other files of the run.
        record: of run.json.
    """
    unfinished = folder / f".{RECORD}"
    write_json(unfinished, record)
    sync(unfinished)
    write_manifest(folder, {RECORD: unfinished})
    unfinished.rename(folder / RECORD)


def write_manifest(folder: Path, unfinished: Mapping[str, Path] = MappingProxyType({})) -> Path:
    """Write manifest.json of the files that a run's folder has by now, under another name first; returns its path.

    Args:
        folder: of a run.
        unfinished: files that do not have their names yet, by these.
    """
    places = {name: unfinished.get(name, folder / name) for name in FILES}
    files = {name: _described(path) for name, path in places.items() if path.is_file()}
    write_whole(folder / MANIFEST, as_text({"version": VERSION, "files": files}))
    sync(folder / MANIFEST)
    return folder / MANIFEST


def check_manifest(folder: Path, names: Collection[str] = FILES) -> bool:
    """Whether a run's folder has a manifest, and is what that says; each file is read once by a process.

    Args:
        folder: of a run.
        names: the files that are looked at.

    Returns:
        False where there is none, as of runs from before there were any, and of summaries that are kept without
        their examples.

    Raises:
        BadInput: a file that is missing, changed or added since the run was written, or a manifest that is none.
    """
    if not (folder / MANIFEST).exists():
        return False
    for fault in _faults(folder, names):
        raise BadInput(fault, place=str(folder), hint="run the suite again: what is in its store is not made anew")
    return True


def _faults(folder: Path, names: Collection[str]) -> Iterator[str]:
    files = _read(folder / MANIFEST)
    if files is None:
        yield f"{MANIFEST} is not what it was written as"
        return
    if lacking := [name for name in ALWAYS if name not in files]:
        yield f"{MANIFEST} lacks {lacking[0]}"
    for name in names:
        try:
            if name in files and _described(folder / name) != files[name]:
                yield f"{name} was changed since the run was written"
        except FileNotFoundError:
            yield f"{name} is missing, which {MANIFEST} lists"
        except OSError as problem:
            yield f"{name} cannot be read: {problem.strerror}"
        if name not in files and (folder / name).exists():
            yield f"{name} was added since the run was written: {MANIFEST} does not list it"


def _read(path: Path) -> dict[str, Any] | None:
    """By name, what the manifest says of each file; None where it is not a manifest."""
    try:
        record = read_json(path)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(record, dict) or record.keys() != {"version", "files"} or type(record["version"]) is not int:
        return None
    files = record["files"]
    known = record["version"] == VERSION and isinstance(files, dict) and files.keys() <= set(FILES)
    return files if known else None


def _described(path: Path) -> dict[str, Any]:
    state = path.stat()
    return {"sha256": _sha256(path.resolve(), state.st_ino, state.st_mtime_ns, state.st_ctime_ns, state.st_size),
            "bytes": state.st_size}  # fmt: skip


@lru_cache(maxsize=4096)
def _sha256(path: Path, *state: int) -> str:
    """Of a file in a state that its folder tells: it is read again where that is another."""
    return file_digest(path)
