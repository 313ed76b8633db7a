"""Folders that are filled before they get their name, and how what a killed process left of them is told: by its lock.

A process holds a lock on each folder that it fills. The lock ends with the process, however that ends, so a folder that
can be locked is nobody's. Where the file system has no locks on folders, nothing is taken for abandoned.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.exhausted import writing

NO_LOCKS = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextmanager
def temporary(parent: Path, name: str) -> Iterator[Path]:
    """A new folder ``<name>-<process>-<random>``, which is removed at the end if it was not renamed by then.

    Raises:
        OSError: it cannot be made.
    """
    with claimed(lambda: _make(parent / f"{name}{_unique()}")) as folder:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _make(folder: Path) -> Path:
    folder.mkdir()  # with the rights that the user gives to new folders: a store may be shared
    return folder


@contextmanager
def claimed(make: Callable[[], Path]) -> Iterator[Path]:
    """A folder or file that ``make`` makes, locked until the block ends."""
    folder, lock = _claim(make)
    try:
        yield folder
    finally:
        os.close(lock)


def _claim(make: Callable[[], Path]) -> tuple[Path, int]:
    while True:
        folder = make()
        with suppress(FileNotFoundError):
            lock = _locked(folder, fcntl.LOCK_EX)
            if folder.exists():  # another process may have taken it for abandoned before it was locked
                return folder, lock
            os.close(lock)


def _locked(folder: Path, how: int) -> int:
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, how)
    except OSError as error:
        if error.errno in NO_LOCKS and not how & fcntl.LOCK_NB:
            return lock
        os.close(lock)
        raise
    return lock


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a folder, alone or with others who share it."""
    lock = _locked(folder, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(lock)


@contextmanager
def locked_at_once(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder alone, without waiting; whether that is so."""
    try:
        lock = _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        os.close(lock)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file that is there whole or, where it cannot be written, as it was before.

    What is no plain file, such as a pipe, is written to as it is.

    Raises:
        OSError: it cannot be written; of a full disk with the file's name.
    """
    given = content.encode("utf-8") if isinstance(content, str) else content
    with writing(path):
        target = path.resolve()
        if target.exists() and not target.is_file():
            target.write_bytes(given)
            return
        with claimed(lambda: _empty_file(target.parent / f".{target.name[:100]}{_unique()}")) as beside:
            try:
                beside.write_bytes(given)
                if target.exists():
                    shutil.copymode(target, beside)
                os.replace(beside, target)
            finally:
                beside.unlink(missing_ok=True)


def _unique() -> str:
    return f"-{os.getpid()}-{secrets.token_hex(4)}"


def _empty_file(path: Path) -> Path:
    path.touch(exist_ok=False)
    return path


def append_whole(path: Path, content: str) -> None:
    """Append to a file all of a text or nothing; errors as those of ``write_whole``."""
    left = content.encode("utf-8")
    with writing(path), open(path, "ab", buffering=0) as file:
        before = os.fstat(file.fileno()).st_size
        try:
            while left:
                left = left[file.write(left) or 0 :]
        except OSError:
            with suppress(OSError):  # of a pipe
                file.truncate(before)
            raise


def remove_abandoned(parent: Path, name: str) -> None:
    """Remove what ``temporary`` made of this name and whose process is gone."""
    for folder in parent.glob(f"{_literal(name)}-*-*"):
        remove_unclaimed(folder)


_UNIQUE = re.compile(r"\..+-\d+-[0-9a-f]{8}")


def remove_unfinished(folder: Path) -> None:
    """Remove the files that ``write_whole`` was writing into a folder, or one below it, when its process was killed."""
    for path in folder.rglob(".*"):
        if _UNIQUE.fullmatch(path.name) and path.is_file():
            remove_unclaimed(path)


def remove_unclaimed(path: Path) -> None:
    """Remove a folder or a file, unless a process holds its lock."""
    with locked_at_once(path) as free:
        if free and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif free:
            path.unlink(missing_ok=True)


def _literal(name: str) -> str:
    """A name without its meaning as a pattern."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def sync_folder(folder: Path) -> None:
    """Wait until all files of a folder are on the disk."""
    for path in sorted(folder.rglob("*")):
        if not path.is_symlink():
            sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
