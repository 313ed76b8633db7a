"""Which artefacts of a store go (``cache gc``): by age, by size, by run; what a kept run was read from stays."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BadInput
from harness.results.run import runs_below, shards_below
from harness.run.folder import artefacts_of, record_of
from harness.store import MANIFEST, QUARANTINE, Store, remove_artefact


@dataclass(frozen=True)
class Stored:
    """An artefact, or what was moved to the quarantine."""

    folder: Path
    bytes: int
    used: float
    """When it was last checked or written, in seconds since the epoch."""
    kept: bool
    """Whether a run needs it."""


@dataclass(frozen=True)
class Runs:
    """What the runs in a results folder need."""

    needed: frozenset[str]
    """Folders below the store's."""
    until: float
    """Whatever was there at this time is needed as well, by a run that does not say what it was read from."""
    silent: tuple[Path, ...]
    """Such runs."""


def runs_that_stay(out: Path, without: Sequence[str] = ()) -> Runs:
    """What all runs and shards need but those that are named, as ``mnist/20260101-120000`` or by their folders.

    Raises:
        BadInput: a name that is no run's.
    """
    folders = {folder.resolve(): folder for folder in (*runs_below(out), *shards_below(out))}
    for name in without:
        known = next((path.resolve() for path in (out / name, Path(name)) if path.resolve() in folders), None)
        if known is None:
            choices = ["/".join(folder.parts[-2:]) for folder in folders.values()]
            raise BadInput(f"there is no run '{name}'", place=str(out), given=name, choices=choices)
        del folders[known]
    needed: set[str] = set()
    until, silent = 0.0, []
    for folder in folders.values():
        if (found := artefacts_of(folder)) is not None:
            needed |= found
        else:
            silent.append(folder)
            until = max(until, record_of(folder).stat().st_mtime)
    return Runs(frozenset(needed), until, tuple(silent))


def stored(store: Store, runs: Runs) -> list[Stored]:
    """All that a store holds, what was used longest ago first."""
    return sorted(_stored(store, runs), key=lambda each: (each.used, each.folder))


def _stored(store: Store, runs: Runs) -> Iterator[Stored]:
    for folder in store.folders():
        used = (folder / MANIFEST).stat().st_mtime
        kept = str(folder.relative_to(store.root)) in runs.needed or folder.stat().st_mtime <= runs.until
        yield Stored(folder, bytes_of(folder), used, kept)
    if (store.root / QUARANTINE).is_dir():
        for folder in (store.root / QUARANTINE).iterdir():
            yield Stored(folder, bytes_of(folder), folder.stat().st_mtime, kept=False)


def bytes_of(folder: Path) -> int:
    """Of all files below it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def to_remove(found: Sequence[Stored], before: float | None = None, room: int | None = None) -> list[Stored]:
    """Of what no run needs, all; or what was not used since ``before``, and what else has to go to fit in ``room``.

    Args:
        found: as ``stored`` orders it.
        before: seconds since the epoch.
        room: in bytes, for all that the store holds.
    """
    free = [each for each in found if not each.kept]
    if before is None and room is None:
        return free
    going = [each for each in free if before is not None and each.used < before]
    if room is not None:
        left = sum(each.bytes for each in found) - sum(each.bytes for each in going)
        for each in free:
            if left > room and each not in going:
                going.append(each)
                left -= each.bytes
    return going


def remove(store: Store, going: Sequence[Stored]) -> None:
    """Remove them, and what killed processes were writing.

    Raises:
        BadInput: a run that uses the store goes on.
    """
    with store.used_by_nobody() as alone:
        if not alone:
            hint = "wait for its end (nor can it be told where the file system has no locks)"
            raise BadInput("a run that uses the store goes on", place=str(store.root), hint=hint)
        store.remove_abandoned()
        for each in going:
            if each.folder.parent.name == QUARANTINE:
                shutil.rmtree(each.folder, ignore_errors=True)
            else:
                remove_artefact(each.folder)
