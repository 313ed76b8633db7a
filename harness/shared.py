"""A place that machines without a common folder share artefacts through: any folder or URL that fsspec opens.

An artefact is one file there, the tar of its folder. It is written under a name of its own and then moved to that of
its key, so it is there whole or not at all; where two machines make the same one, either may win.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO, Any

from harness.errors import BadInput
from harness.folders import WEEK

TAR = ".tar"
UNFINISHED = ".writing"
"""What the names of files begin with that are being written."""


class Damaged(ValueError):
    """What is there is not what ``put`` writes; the message says why."""


def shared_place(url: str | Path) -> SharedPlace:
    """The place of a URL, or a folder, connected to once in each process.

    Raises:
        BadInput: it cannot be reached.
    """
    return _connected(url, os.getpid())


@cache
def _connected(url: str | Path, process: int) -> SharedPlace:  # after a fork another one: what was open is not shared
    return SharedPlace(url)


def shown(words: str | Path) -> str:
    """A URL, or words with some, without what may be secret in it: the user and password, and the query."""
    return re.sub(r"://(?:[^/@\s]*@)?([^\s?'\"]*)(?:\?[^\s'\"]*)?", r"://\1", str(words))


class SharedPlace:
    """A folder that fsspec opens, by its URL; a path is one of this machine, whatever characters it has.

    Any method may raise ``BadInput`` with what the file system says, such as that nobody is allowed to write.
    """

    def __init__(self, url: str | Path) -> None:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        self.shown = shown(url)
        self._files: Any
        if isinstance(url, Path):
            self._files, self._root = LocalFileSystem(), str(url.absolute())
            return
        with self._said("is not to be reached"):
            self._files, root = url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
            self._root = str(root).rstrip("/")

    def names(self) -> set[str]:
        """The artefacts there, as folders of a store; what was being written a week ago is removed on the way."""
        found = set()
        with self._said("cannot be listed"):
            self._files.invalidate_cache()
            try:
                paths = self._files.find(self._root)
            except FileNotFoundError:  # nothing was ever written there
                return set()
            for path in paths:
                name = str(path).removeprefix(self._root).lstrip("/")
                if name.startswith(UNFINISHED):
                    self._remove_if_old(path)
                elif name.endswith(TAR):
                    found.add(name.removesuffix(TAR))
        return found

    def has(self, name: str) -> bool:
        """Whether an artefact is there."""
        with self._said("cannot be read"):
            self._files.invalidate_cache()
            return bool(self._files.exists(self._path(name)))

    def get(self, name: str, folder: Path) -> bool:
        """Copy an artefact's files into an empty folder; whether it is there.

        Raises:
            Damaged: it is no tar, or one that ``put`` did not write.
        """
        with self._said("cannot be read"):
            self._files.invalidate_cache()
            try:
                with self._files.open(self._path(name), "rb") as file:
                    _unpack(file, folder)
            except FileNotFoundError:
                return False
        return True

    def put(self, name: str, folder: Path) -> None:
        """Copy an artefact there; nothing happens where one of its name is there."""
        if self.has(name):
            return
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        with (
            self._said("cannot be written"),
            self._written(self._path(name)) as file,
            tarfile.open(fileobj=file, mode="w|") as archive,
        ):
            for path in files:
                archive.add(path, str(path.relative_to(folder)), recursive=False)

    def remove(self, name: str) -> None:
        """Forget an artefact; nothing happens if it is not there."""
        with self._said("cannot be written"), suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    @contextmanager
    def meeting(self) -> Iterator[str]:
        """The name of a new folder there for words that two machines tell each other; gone at the end."""
        name = f"{UNFINISHED}-{secrets.token_hex(8)}"
        try:
            yield name
        finally:
            with suppress(Exception):
                self._files.rm(f"{self._root}/{name}", recursive=True)

    def write_word(self, name: str, word: str) -> None:
        """Leave a word, in a file of this name."""
        with self._said("cannot be written"), self._written(f"{self._root}/{name}") as file:
            file.write(word.encode())

    def word(self, name: str) -> str | None:
        """What ``write_word`` left there; None where it is not to be seen."""
        with self._said("cannot be read"):
            self._files.invalidate_cache()
            try:
                return str(self._files.cat_file(f"{self._root}/{name}").decode())
            except FileNotFoundError:
                return None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}{TAR}"

    @contextmanager
    def _written(self, path: str) -> Iterator[IO[bytes]]:
        """A new file, which gets its name when the block ends without an error."""
        beside = f"{self._root}/{UNFINISHED}-{secrets.token_hex(8)}"
        try:
            for parent in (self._root, path.rpartition("/")[0]):
                self._files.makedirs(parent, exist_ok=True)
            with self._files.open(beside, "wb") as file:
                yield file
            self._move(beside, path)
        except BaseException:
            with suppress(Exception):
                self._files.rm_file(beside)
            raise

    def _move(self, path: str, to: str) -> None:
        """Rename a file; an object is copied on the side of its store, without looking for folders of that name."""
        from fsspec import AbstractFileSystem

        if type(self._files).mv is not AbstractFileSystem.mv:
            self._files.mv(path, to)
            return
        self._files.cp_file(path, to)
        self._files.rm_file(path)

    def _remove_if_old(self, path: str) -> None:
        with suppress(Exception):  # not every file system tells times, and another machine may be removing it
            if datetime.now(UTC) - _aware(self._files.modified(path)) > timedelta(seconds=WEEK):
                self._files.rm_file(path)

    @contextmanager
    def _said(self, what: str) -> Iterator[None]:
        """Errors of any file system, in one line."""
        try:
            yield
        except (BadInput, Damaged, MemoryError):
            raise
        except ImportError as error:  # fsspec names what to install
            raise BadInput(f"the shared store {what}: {shown(str(error))}", place=self.shown) from None
        except Exception as error:
            words = shown(str(error)) or type(error).__name__  # libraries may name the whole URL
            raise BadInput(f"the shared store {what}: {words}", place=self.shown) from error


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _unpack(file: Any, folder: Path) -> None:
    """The plain files of a tar, none outside the folder; no rights, owners, links or devices."""
    try:
        with tarfile.open(fileobj=file, mode="r|") as archive:
            for entry in archive:
                name = PurePosixPath(entry.name)
                content = archive.extractfile(entry) if entry.isreg() else None
                if content is None or name.is_absolute() or ".." in name.parts:
                    raise Damaged(f"'{entry.name[:100]}' is no plain file below its folder")
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with open(target, "xb") as out:
                    shutil.copyfileobj(content, out, 2**20)
    except (tarfile.TarError, EOFError, FileExistsError, NotADirectoryError, UnicodeError) as error:
        raise Damaged(f"not a whole tar ({error})") from error
