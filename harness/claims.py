"""Claims: who makes an artefact now, so that others wait for it instead of making it as well.

A claim is a locked file. It only saves work: what two processes make of one key is the same, and written under its name
at once, so whoever waits in vain may go ahead. A lock ends with its process, on this machine or another (NFS). Where
the node of another has died and the file server keeps its lock, or where its process was stopped, nobody touches the
file any longer, and after ``PATIENCE`` it is waited for no more; where the file system has no locks, nobody waits.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, MutableSequence
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.folders import NO_LOCKS

BEAT = 20.0
"""Seconds after which who holds a claim touches its file again."""
PATIENCE = 600.0
"""Seconds without a touch after which a claim is waited for no more."""
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0
"""Seconds between two looks at a claim of another's."""


class Waiting:
    """How long a process has waited for claims of others, kept where another process of the machine can read it.

    Args:
        numbers: that two are kept in: seconds that were waited, and since when it waits now (0 while it does not).
        first: of these, by its place.
    """

    def __init__(self, numbers: MutableSequence[float], first: int = 0) -> None:
        self.numbers, self.first = numbers, first

    def begin(self) -> None:
        self.numbers[self.first + 1] = time.monotonic()

    def end(self) -> None:
        self.numbers[self.first] = self.seconds()
        self.numbers[self.first + 1] = 0.0

    def clear(self) -> None:
        self.numbers[self.first] = self.numbers[self.first + 1] = 0.0

    def seconds(self) -> float:
        """Until now."""
        waited, since = self.numbers[self.first], self.numbers[self.first + 1]
        return waited + (time.monotonic() - since if since else 0.0)


_waiting = Waiting([0.0, 0.0])


def tell(waiting: Waiting) -> None:
    """From now on, keep there how long this process waits."""
    global _waiting
    _waiting = waiting


@contextmanager
def claim(file: Path) -> Iterator[bool]:
    """Wait until no other process holds the claim of this name, and hold it while the block lasts.

    Args:
        file: the claim's, below a folder that is made, and removed again when the last claim in it ends.

    Yields:
        Whether another process held it meanwhile, and so may have done the work.
    """
    try:
        lock, waited = _taken(file)
    finally:
        _waiting.end()
    stop = threading.Event()
    toucher = threading.Thread(target=_touch, args=(lock, stop), daemon=True)
    if lock is not None:
        toucher.start()
    try:
        yield waited
    finally:
        stop.set()
        if lock is not None:
            toucher.join()  # what it touches is another file once this number is given again
            with suppress(OSError):  # while it is locked, so that nobody holds a file that others no longer see
                file.unlink()
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_UN)  # a process that was started meanwhile may have it open, too
            os.close(lock)
            with suppress(OSError):  # others have claims there
                file.parent.rmdir()


def remove_unheld(folder: Path) -> None:
    """Remove the claims of processes that are gone, and their folder if it is empty then."""
    for file in folder.glob("*"):
        with suppress(OSError):
            lock = os.open(file, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.unlink()
            finally:
                os.close(lock)
    with suppress(OSError):
        folder.rmdir()


def _taken(file: Path) -> tuple[int | None, bool]:
    """The descriptor of the locked file, None where there is nothing to be had; and whether another held it."""
    seen = _Sight()
    pause, waited = FIRST_PAUSE, False
    while (lock := _opened(file)) is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not waited:
                _waiting.begin()
            waited = True
            touched = os.fstat(lock).st_mtime
            os.close(lock)
            if seen.unchanged_for(touched) > PATIENCE:
                return None, True
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            continue
        except OSError as error:
            os.close(lock)
            if error.errno in NO_LOCKS:
                return None, waited
            raise
        if _is(lock, file):
            return lock, waited
        os.close(lock)  # it was removed before it was locked
    return None, waited


def _opened(file: Path) -> int | None:
    """None where no file can be made: another user's store, which is only read."""
    while True:
        try:
            file.parent.mkdir(exist_ok=True)
            return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except (FileNotFoundError, FileExistsError):  # the last of others removed the folder just now
            if not file.parent.parent.is_dir() or (file.parent.exists() and not file.parent.is_dir()):
                raise
        except PermissionError:
            return None


def _is(lock: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), os.stat(file))
    except FileNotFoundError:
        return False


class _Sight:
    """How long a file has not been touched, by the clock of who looks: those of two machines may differ."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.touched, self.since = clock, 0.0, clock()

    def unchanged_for(self, touched: float) -> float:
        if touched != self.touched:
            self.touched, self.since = touched, self.clock()
        return self.clock() - self.since


def _touch(lock: int, stop: threading.Event) -> None:
    """Until it is to stop."""
    while not stop.wait(BEAT):
        with suppress(OSError):
            os.utime(lock)
