"""A content-addressed store, whose artefacts have the names that keys give.

Artefacts are folders of JSON and safetensors files, written under a temporary name, fsynced and renamed. Every process
checks each artefact that it uses against the sha256 of its files, once; a damaged one is moved aside and made again.
Machines that do not see one folder share artefacts through a place (``harness.shared``), which each draws from.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.claims import claim, remove_unheld
from harness.errors import BadInput
from harness.exhausted import writing
from harness.folders import locked, remove_abandoned, sync, temporary, used_by_nobody, used_with_others
from harness.keys import Key, file_digest
from harness.shared import Damaged, shared_place

MANIFEST = "manifest.json"
QUARANTINE = ".quarantine"
"""The folder of a store that damaged artefacts are moved to."""
WRITING = ".writing"
"""What the names of folders begin with that are being written."""
CLAIMS = ".claims"
"""The folder of the claims of what is being made (``harness.claims``)."""
LOCK = "lock"
"""The file whose lock a run holds together with others, and who collects alone."""
_log = logging.getLogger(__name__)

Compare = Callable[[str, Path, Path], str | None]
"""From a kind and two folders that hold the same artefact: how they differ, or None."""

_checked: set[tuple[Path, Key]] = set()
"""The artefacts that this process has read whole and found as they were written, by store."""
_lost: dict[tuple[Path, Key], str] = {}
"""What was said of those that it has moved aside."""
_made: list[tuple[Path, Key]] = []
"""Those that it has written, in order."""
_drawn_from: dict[Path, tuple[Sequence[Store], Compare]] = {}
"""By store, others that what it lacks is copied from."""
_shared: set[tuple[Path, Key]] = set()
"""The artefacts that this process knows to be at the place that their store shares."""
_listed: dict[Path, set[str]] = {}
"""By store, what is at the place that it shares, as folders of a store, where that is looked up once for all."""
AT_ONCE = 16
"""Artefacts that are copied from and to a shared place at the same time: over a network most of that is waiting."""


def check_again() -> None:
    """Check artefacts anew from now on, as a new process would."""
    _checked.clear()


class Store:
    """Artefacts below one folder, shared by runs and processes.

    Args:
        root: the folder.
        shared: the URL of a place that other machines have as well: what is missing here is copied from there, and
            ``share`` copies what was made here to it.
    """

    def __init__(self, root: Path, shared: str | None = None) -> None:
        self.root, self.shared = Path(root), shared

    def path(self, key: Key) -> Path:
        """Where the artefact is, or would be; ``read`` is for its files."""
        return self.root / key.folder

    def has(self, key: Key) -> bool:
        """Whether the artefact is there, as it was written; a damaged one is moved aside, and is then not there."""
        if self.root in _listed and not os.path.isfile(f"{self.root}/{key.folder}/{MANIFEST}"):
            return key.folder in _listed[self.root]
        return self._why_not(key) is None

    def read(self, key: Key) -> Path:
        """The folder of an artefact, to read its files.

        Raises:
            BadInput: it is not there, or is damaged, and nobody who could make it again has been asked to.
        """
        if problem := self._why_not(key):
            raise BadInput(problem, hint="run the suite again: what is missing is made")
        return self.path(key)

    def lost(self, key: Key) -> str | None:
        """What was damaged of an artefact that this process has moved aside, and that is not there again."""
        return None if self.has(key) else _lost.get((self.root, key))

    def _why_not(self, key: Key) -> str | None:
        problem = self._why_not_here(key)
        if problem and self.shared and self._get(key):
            return self._why_not_here(key)
        return problem

    def _why_not_here(self, key: Key) -> str | None:
        folder, name = f"{self.root}/{key.folder}", (self.root, key)
        if self.root in _drawn_from and name not in _checked:
            self._draw(key, *_drawn_from[self.root])
        manifest = f"{folder}/{MANIFEST}"
        if not os.path.isfile(manifest):
            _checked.discard(name)
            return _lost.get(name, f"{folder}: no such artefact is in the store")
        if name not in _checked:
            if fault := next(_faults(Path(folder), key), None):
                return self._set_aside(key, fault)
            with suppress(OSError):  # of another user's
                os.utime(manifest)  # when it was last of use
            _checked.add(name)
        return None

    @contextmanager
    def drawing_from(self, others: Sequence[Path], compare: Compare) -> Iterator[None]:
        """While the block lasts, what is missing here is copied from other stores as soon as this process asks for it.

        What is damaged there is moved aside there, and missing.

        Args:
            others: the folders of stores.
            compare: is asked of what several have.

        Raises:
            BadInput: from whatever asks, where two of them differ.
        """
        _drawn_from[self.root] = [Store(other) for other in others], compare
        try:
            yield
        finally:
            del _drawn_from[self.root]

    def _draw(self, key: Key, others: Sequence[Store], compare: Compare) -> None:
        folders = [store.path(key) for store in others if store.has(key)]
        if not folders:
            return
        if not (self.path(key) / MANIFEST).is_file() or next(_faults(self.path(key), key), None):
            self.remove(key)
            with self.write(key) as fresh:
                for name in read_json(folders[0] / MANIFEST)["files"]:
                    (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(folders[0] / name, fresh / name)
        for folder in folders:
            if difference := compare(key.kind, self.path(key), folder):
                raise BadInput(difference, place=str(folder))

    def _set_aside(self, key: Key, fault: str) -> str | None:
        """Move a damaged artefact to the quarantine; what is said of it. None if another process made it again."""
        try:
            aside = self.quarantine(self.path(key), key)
        except FileNotFoundError:  # a process on another machine, whose lock is not seen, was first
            return self._why_not_here(key)
        except OSError as error:
            problem = f"{fault}: the artefact is damaged, and cannot be moved aside ({error.strerror})"
        else:
            if aside is None:  # another process was first
                return self._why_not_here(key)
            problem = f"{fault}: the artefact is damaged, and was moved to {aside}"
        _log.warning("%s", problem)
        _lost[self.root, key] = problem
        return problem

    def quarantine(self, folder: Path, key: Key | None = None) -> Path | None:
        """Move the folder of a damaged artefact aside; where it is then. None where it is whole, or gone, by now.

        Raises:
            OSError: it cannot be moved.
        """
        place = self.root / QUARANTINE
        place.mkdir(exist_ok=True)
        aside = place / f"{folder.parent.parent.name}-{folder.parent.name}{folder.name[:10]}-{secrets.token_hex(4)}"
        with locked(place):
            if not (folder / MANIFEST).is_file() or not next(_faults(folder, key), None):
                return None
            os.rename(folder, aside)
        return aside

    def remove(self, key: Key) -> None:
        """Forget an artefact, at a shared place too; nothing happens if it is not there."""
        for known in (_checked, _shared):
            known.discard((self.root, key))
        remove_artefact(self.path(key))
        if self.shared:
            shared_place(self.shared).remove(key.folder)
            _listed.get(self.root, set()).discard(key.folder)

    @contextmanager
    def listed(self) -> Iterator[None]:
        """While the block lasts, ``has`` goes by what the shared place had at its begin, and copies nothing.

        One question instead of thousands: for who plans, to whom it does not matter what another machine adds
        meanwhile.
        """
        if not self.shared or self.root in _listed:
            yield
            return
        _listed[self.root] = shared_place(self.shared).names()
        try:
            yield
        finally:
            del _listed[self.root]

    def share(self, keys: Iterable[Key]) -> None:
        """Copy artefacts to the shared place, of those that are here what it lacks."""
        if not self.shared:
            return
        place, there = shared_place(self.shared), _listed.get(self.root, set())
        new = [key for key in dict.fromkeys(keys) if (self.root, key) not in _shared and key.folder not in there]

        def put(key: Key) -> None:
            if (self.path(key) / MANIFEST).is_file():
                place.put(key.folder, self.path(key))
                _shared.add((self.root, key))

        self._for_all(put, new)

    def share_used(self) -> None:
        """Copy to the shared place what this process has read or made, and it lacks."""
        self.share([key for root, key in _checked if root == self.root])

    def draw(self, keys: Iterable[Key]) -> None:
        """Copy artefacts that are missing here from the shared place, many at once: who reads them need not wait."""
        if self.shared:
            missing = [key for key in dict.fromkeys(keys) if not (self.path(key) / MANIFEST).is_file()]
            there = _listed.get(self.root)
            self._for_all(self._get, [key for key in missing if there is None or key.folder in there])

    @staticmethod
    def _for_all(function: Callable[[Key], Any], keys: Sequence[Key]) -> None:
        if keys:
            with ThreadPoolExecutor(min(AT_ONCE, len(keys))) as pool:
                list(pool.map(function, keys))

    def _get(self, key: Key) -> bool:
        """Copy an artefact from the shared place, where what is damaged is removed; whether it was there, and whole."""
        assert self.shared is not None
        place = shared_place(self.shared)
        with writing(self.root), self._new(self.path(key)) as folder:
            try:
                if not place.get(key.folder, folder):
                    return False
                if fault := next(_faults(folder, key), None):
                    raise Damaged(fault.replace(f"{folder}/", ""))
            except Damaged as damage:
                _log.warning("%s: %s: the artefact is damaged, and was removed", place.shown, damage)
                place.remove(key.folder)
                return False
            _shared.add((self.root, key))
            self._finish(folder, key)
        return True

    @contextmanager
    def write(self, key: Key) -> Iterator[Path]:
        """A temporary folder to fill; it becomes the artefact when the block ends without an error.

        Raises:
            OSError: there is no room on the disk; it names the store.
        """
        with writing(self.root), self._new(self.path(key)) as folder:
            yield folder
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            manifest = {
                "kind": key.kind,
                "inputs": json.loads(key.inputs),
                "files": {str(f.relative_to(folder)): file_digest(f) for f in files},
            }
            write_json(folder / MANIFEST, manifest)
            if self._finish(folder, key):
                _made.append((self.root, key))

    def _finish(self, folder: Path, key: Key) -> bool:
        """Let a folder be the artefact; whether it is so, and not another process's folder."""
        final = self.path(key)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                sync(path)
        try:
            os.rename(folder, final)
        except OSError:
            if self._why_not_here(key) is None:  # another process was first
                return False
            shutil.rmtree(final, ignore_errors=True)  # a folder that somebody began to remove
            os.rename(folder, final)
        sync(final.parent)
        _checked.add((self.root, key))
        return True

    @contextmanager
    def _new(self, final: Path) -> Iterator[Path]:
        final.parent.mkdir(parents=True, exist_ok=True)
        with temporary(self.root, WRITING) as folder:
            yield folder

    @contextmanager
    def kept_if(self, check: Callable[[], None]) -> Iterator[None]:
        """What this process writes in the block is removed again where ``check`` raises after it, and else shared."""
        begin = len(_made)
        try:
            yield
        finally:
            try:
                check()
            except BaseException:
                for root, key in _made[begin:]:
                    Store(root).remove(key)
                raise
            self.share(key for root, key in _made[begin:] if root == self.root)

    def used(self) -> list[str]:
        """The artefacts that this process has read or made, as folders below the store's."""
        return sorted(key.folder for root, key in _checked if root == self.root)

    def remove_abandoned(self) -> None:
        """Remove what processes that are gone were writing, and their claims."""
        remove_abandoned(self.root, WRITING)
        remove_unheld(self.root / CLAIMS)

    @contextmanager
    def claimed(self, keys: Iterable[Key]) -> Iterator[None]:
        """Wait for the process, if there is one, that makes the first artefact of these that is missing.

        Nobody else who asks makes it while the block lasts.
        """
        key = next((key for key in keys if not self.has(key)), None)
        if key is None:
            yield
            return
        self.root.mkdir(parents=True, exist_ok=True)
        with claim(self.root / CLAIMS / f"{key.kind}-{key.digest[:40]}"):
            yield

    @contextmanager
    def used_with_others(self) -> Iterator[bool]:
        """Nothing is collected while the block lasts. Yields whether no other process used the store at its begin."""
        self.root.mkdir(parents=True, exist_ok=True)
        with used_by_nobody(self.root / LOCK) as first:
            pass
        with used_with_others(self.root / LOCK):
            yield first

    @contextmanager
    def used_by_nobody(self) -> Iterator[bool]:
        """Whether nobody else uses the store, and will not while the block lasts."""
        with used_by_nobody(self.root / LOCK) as alone:
            yield alone

    def artefacts(self) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        """Every artefact's folder and manifest, in a fixed order; those whose manifest cannot be read are left out."""
        for folder in self.folders():
            with suppress(OSError, ValueError):
                yield folder, read_json(folder / MANIFEST)

    def folders(self) -> list[Path]:
        """Those of all artefacts, damaged or not."""
        return sorted(found.parent for found in self.root.glob(f"[!.]*/*/[!.]*/{MANIFEST}"))  # what is hidden is none

    def damaged(self) -> dict[Path, list[str]]:
        """The folders of artefacts that are not as they were written, each with a line for each file that is not."""
        found = {folder: list(_faults(folder)) for folder in self.folders()}
        return {folder: lines for folder, lines in found.items() if lines}


def remove_artefact(folder: Path) -> None:
    """Remove an artefact's folder: without a manifest it is none, so nobody takes what is left for damage meanwhile."""
    with suppress(FileNotFoundError, NotADirectoryError):
        (folder / MANIFEST).unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _faults(folder: Path, key: Key | None = None) -> Iterator[str]:
    """One line for each file of an artefact that is not as it was written; ``key`` is the one that it should have."""
    manifest = folder / MANIFEST
    try:
        record = read_json(manifest)
        files, made_of = dict(record["files"]), Key(record["kind"], json.dumps(record["inputs"], sort_keys=True))
        if not all(isinstance(each, str) for pair in files.items() for each in pair):
            raise TypeError
        same = made_of == key if key else Store(folder.parents[2]).path(made_of) == folder
    except FileNotFoundError:
        yield f"{manifest}: missing"
        return
    except OSError as error:
        yield f"{manifest}: {error.strerror}"
        return
    except (ValueError, KeyError, TypeError, RecursionError):
        yield f"{manifest}: not a manifest"
        return
    if not same:
        yield f"{manifest}: its inputs are not those of its folder"
    for name, expected in files.items():
        try:
            if file_digest(folder / name) != expected:
                yield f"{folder / name}: its sha256 is not the recorded one"
        except (FileNotFoundError, NotADirectoryError):
            yield f"{folder / name}: missing"
        except (OSError, ValueError) as error:
            yield f"{folder / name}: {getattr(error, 'strerror', None) or error}"


def read_json(path: Path) -> Any:
    """The JSON value in a file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value, readable and with sorted keys; NaN is refused."""
    path.write_text(as_text(value), encoding="utf-8")


def as_text(value: Any) -> str:
    """A JSON value as ``write_json`` writes it."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"
