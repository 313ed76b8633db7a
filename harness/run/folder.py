"""The folders of runs: a new one for each, and none left of runs that were killed before they had results."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from harness.errors import BadInput
from harness.folders import claimed, locked, remove_unclaimed, remove_unfinished
from harness.run.places import LATEST
from harness.store import Store, read_json, write_json

ARTEFACTS = "artefacts.json"
"""What a run's results were read from: folders of the store. It stays while the run does."""
_POINTING = f".{LATEST}-"
_STAMP = re.compile(r"\d{8}-\d{6}(-\d+)?")


@contextmanager
def new_folder(parent: Path, started: datetime) -> Iterator[Path]:
    """A run's own folder below that of its suite, which no other run takes for abandoned until the block ends."""
    parent.mkdir(parents=True, exist_ok=True)
    for folder in parent.iterdir():
        if folder.is_symlink():
            if folder.name.startswith(_POINTING):
                folder.unlink(missing_ok=True)
        elif _STAMP.fullmatch(folder.name):
            if (folder / "run.json").exists():
                remove_unfinished(folder)
            else:
                remove_unclaimed(folder)
    with claimed(lambda: _make(parent, started)) as folder:
        yield folder


def _make(parent: Path, started: datetime) -> Path:
    stamp = started.strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{i}" for i in range(2, 100))):
        try:
            (folder := parent / f"{stamp}{suffix}").mkdir()
            return folder
        except FileExistsError:
            continue
    raise BadInput(f"a hundred runs were begun in one second in {parent}")


def point_latest(folder: Path) -> None:
    """Let the suite's ``latest`` be this run."""
    link = folder.parent / LATEST
    while True:
        temporary = folder.parent / f"{_POINTING}{os.getpid()}-{secrets.token_hex(4)}"
        temporary.symlink_to(folder.name)
        try:
            os.replace(temporary, link)
        except FileNotFoundError:  # another run has taken it for what a killed one left
            continue
        return


@contextmanager
def using(store: Store) -> Iterator[None]:
    """Begin and end with nothing left of processes that are gone; meanwhile nothing is collected (``cache gc``)."""
    store.root.mkdir(parents=True, exist_ok=True)
    with locked(store.root, shared=True):
        store.remove_abandoned()
        try:
            yield
        finally:
            store.remove_abandoned()  # of workers that were ended on the way


def write_artefacts(folder: Path, store: Store) -> None:
    """Note in a run's folder what this process read of the store."""
    write_json(folder / ARTEFACTS, store.used())


def artefacts_of(folder: Path) -> set[str] | None:
    """What ``write_artefacts`` noted; None where that is not known."""
    try:
        found = read_json(folder / ARTEFACTS)
    except (OSError, ValueError):
        return None
    return set(found) if isinstance(found, list) and all(isinstance(each, str) for each in found) else None
