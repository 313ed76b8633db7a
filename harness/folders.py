"""Folders that are filled before they get their name, and how what a killed process left of them is told: by its lock.

A process holds a lock on each folder that it fills. The lock ends with the process, however that ends, so a folder that
can be locked is nobody's. Where the file system has no locks on folders, nothing is taken for abandoned. Machines that
share a folder (NFS, say) do not see each other's locks on folders, so a name says whose it is: what another machine
made is taken for abandoned only when nothing in it has changed for a week.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from harness.errors import BadInput
from harness.exhausted import writing

NO_LOCKS = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
PATIENCE, PAUSE = 600.0, 0.1
"""Seconds that a lock is waited for, and between two attempts."""
WEEK = 7 * 86400.0
"""Seconds without a change after which what another machine left is taken for abandoned."""
BOOT = Path("/proc/sys/kernel/random/boot_id")


@cache
def here() -> str:
    """A short name of this machine since it was started: exactly where this is equal, locks on folders are seen."""
    try:
        name = BOOT.read_text()
    except OSError:
        name = platform.node()
    return hashlib.sha256(name.encode()).hexdigest()[:8]


@contextmanager
def temporary(parent: Path, name: str) -> Iterator[Path]:
    """A new folder ``<name>-<machine>-<process>-<random>``, which is removed at the end if it was not renamed by then.

    Raises:
        OSError: it cannot be made.
    """
    folder = parent / f"{name}{_unique()}"
    try:  # before it is made: a signal may come as soon as it is
        with claimed(lambda: _make(folder)):
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


def _locked(folder: Path, how: int, flags: int = os.O_RDONLY) -> int:
    lock = os.open(folder, flags | os.O_CLOEXEC, 0o666)
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
    with _at_once(folder, os.O_RDONLY) as alone:
        yield alone


@contextmanager
def used_with_others(file: Path) -> Iterator[None]:
    """Hold the lock of a file, which is made, together with others who use the same; machines that share it see that.

    A network file system passes locks on, but only those of files, and one to hold alone only of a file that may be
    written.

    Raises:
        BadInput: somebody holds it alone, for ``PATIENCE``.
    """
    try:
        lock = _shared(file, os.O_RDWR | os.O_CREAT)
    except PermissionError:  # made by another user: to share it, it need only be read
        lock = _shared(file, os.O_RDONLY)
    try:
        yield
    finally:
        os.close(lock)


def _shared(file: Path, flags: int) -> int:
    """Locked with others; a lock that a node left which has died is not waited for without end."""
    began = time.monotonic()
    while True:
        try:
            return _locked(file, fcntl.LOCK_SH | fcntl.LOCK_NB, flags)
        except BlockingIOError:
            if time.monotonic() - began > PATIENCE:
                hint = "if there is none (a node that had it may have died), remove the file"
                raise BadInput("a process holds it alone, such as 'cache gc'", place=str(file), hint=hint) from None
            time.sleep(PAUSE)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return os.open(file, flags | os.O_CLOEXEC, 0o666)


@contextmanager
def used_by_nobody(file: Path) -> Iterator[bool]:
    """Hold the lock of ``used_with_others`` alone, without waiting; whether that is so."""
    with _at_once(file, os.O_RDWR | os.O_CREAT) as alone:
        yield alone


@contextmanager
def _at_once(path: Path, flags: int) -> Iterator[bool]:
    try:
        lock = _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB, flags)
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
        beside = target.parent / f".{target.name[:100]}{_unique()}"
        try:
            with claimed(lambda: _empty_file(beside)):
                beside.write_bytes(given)
                if target.exists():
                    shutil.copymode(target, beside)
                os.replace(beside, target)
        finally:
            beside.unlink(missing_ok=True)


def _unique() -> str:
    """The end of a name that nobody else has: the machine, the process, and chance."""
    return f"-{here()}-{os.getpid()}-{secrets.token_hex(4)}"


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
        said = folder.name.removeprefix(f"{name}-").split("-")
        remove_unclaimed(folder, said[0] if len(said) == 3 else None)


_UNIQUE = re.compile(r"\..+-([0-9a-f]{8})-\d+-[0-9a-f]{8}")


def remove_unfinished(folder: Path) -> None:
    """Remove the files that ``write_whole`` was writing into a folder, or one below it, when its process was killed."""
    for path in folder.rglob(".*"):
        if (said := _UNIQUE.fullmatch(path.name)) and path.is_file():
            remove_unclaimed(path, said[1])


def remove_unclaimed(path: Path, machine: str | None) -> None:
    """Remove a folder or a file, unless a process holds its lock, or one on another machine may do so.

    Args:
        path: to remove.
        machine: ``here()`` of the machine that made it; None where that is not known.
    """
    with locked_at_once(path) as free:
        if not free or (machine != here() and _idle_for(path) <= WEEK):
            return
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _idle_for(folder: Path) -> float:
    """Seconds since anything in a folder was changed."""
    changed = 0.0
    for path in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):
            changed = max(changed, path.lstat().st_mtime)
    return time.time() - changed


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
