"""The folders of runs: a new one for each, and none left of runs that were killed before they had results."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from harness.errors import BadInput
from harness.folders import claimed, here, remove_unclaimed, remove_unfinished
from harness.results.shard import SHARD
from harness.run.places import LATEST
from harness.store import Store, read_json, write_json

ARTEFACTS = "artefacts.json"
"""What a run's results were read from: folders of the store. It stays while the run does."""
MAKER = ".machine"
"""Which machine begins a run: a file of its folder until the run is whole."""
_POINTING = f".{LATEST}-"
_STAMP = re.compile(r"\d{8}-\d{6}(-shard-\d+-of-\d+)?(-\d+)?")


@contextmanager
def new_folder(parent: Path, started: datetime, part: str = "") -> Iterator[Path]:
    """A run's own folder below that of its suite, which no other run takes for abandoned until the block ends.

    Where the run is not finished by then, the folder is removed.

    Args:
        parent: of the suite.
        started: when the run did, which is in the folder's name.
        part: what comes after that, where the run is a part of one: "-shard-1-of-4".
    """
    parent.mkdir(parents=True, exist_ok=True)
    for folder in parent.iterdir():
        if folder.is_symlink():
            if folder.name.startswith(_POINTING):
                folder.unlink(missing_ok=True)
        elif not _STAMP.fullmatch(folder.name):
            continue
        elif is_finished(folder):  # and its process was ended before it could remove this
            (folder / MAKER).unlink(missing_ok=True)
            remove_unfinished(folder)
        else:
            remove_unclaimed(folder, _machine_of(folder))
    made: list[Path] = []
    try:
        with claimed(lambda: _make(parent, f"{started.strftime('%Y%m%d-%H%M%S')}{part}", made)) as folder:
            yield folder
        _tidy(made)
    finally:  # again: a signal may come at any line
        _tidy(made)


def _tidy(folders: list[Path]) -> None:
    for folder in folders:
        if is_finished(folder):
            (folder / MAKER).unlink(missing_ok=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def is_finished(folder: Path) -> bool:
    """Whether a folder is that of a run, or of a shard of one, that came to its end."""
    return record_of(folder).exists()


def record_of(folder: Path) -> Path:
    """The file that says what a run, or a shard of one, is: the last that is written."""
    return folder / SHARD if (folder / SHARD).exists() else folder / "run.json"


def _make(parent: Path, name: str, made: list[Path]) -> Path:
    """A new folder, which is then the only one in ``made``."""
    made.clear()
    for suffix in ("", *(f"-{i}" for i in range(2, 100))):
        try:
            (folder := parent / f"{name}{suffix}").mkdir()
        except FileExistsError:
            continue
        made.append(folder)
        with suppress(FileNotFoundError):  # taken for abandoned by another run: who locks it sees that
            (folder / MAKER).write_text(here())
        return folder
    raise BadInput(f"a hundred runs were begun in one second in {parent}")


def _machine_of(folder: Path) -> str | None:
    """The machine that began a run; None where it was ended before it could say so."""
    try:
        return (folder / MAKER).read_text()
    except OSError:
        return None if any(folder.iterdir()) else here()  # an empty folder that goes is made again by who made it


def point_latest(folder: Path) -> None:
    """Let the suite's ``latest`` be this run."""
    link = folder.parent / LATEST
    while True:
        temporary = folder.parent / f"{_POINTING}{os.getpid()}-{secrets.token_hex(4)}"
        try:
            temporary.symlink_to(folder.name)
            with suppress(FileNotFoundError):  # another run has taken it for what a killed one left
                os.replace(temporary, link)
                return
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def using(store: Store) -> Iterator[bool]:
    """Begin and end with nothing left of processes that are gone; meanwhile nothing is collected (``cache gc``).

    Yields whether no other run used the store when this one began.
    """
    with store.used_with_others() as first:
        store.remove_abandoned()
        try:
            yield first
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
