"""One interface for every meter: start, stop, and a reading that says what it is or why there is none."""

from __future__ import annotations

import resource
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Sample = TypeVar("Sample")


class Unavailable(Exception):
    """Raised inside a meter, and never seen outside: the message is the reason that a reading gives."""


@dataclass(frozen=True)
class Reading:
    """What a meter found between start and stop."""

    value: float | None
    """None where there is no figure; nothing is estimated."""
    unit: str
    source: str
    """Where the figure comes from; "unavailable" where there is none."""
    note: str = ""
    """What the figure covers, or why there is none."""

    @property
    def words(self) -> str:
        """Source and note on one line, for a cell of a table."""
        return f"{self.source}: {self.note}" if self.note else self.source


class Meter(ABC):
    """Measures between ``start`` and ``stop``, which never raise: whatever goes wrong is the reading's note.

    A meter may be used again after ``stop``.
    """

    unit: str

    def start(self) -> None:
        """Begin to measure."""
        self._fault = self._attempt(self._begin)
        if self._fault is not None:
            self._attempt(self._release)

    def stop(self) -> Reading:
        """What was found since ``start``."""
        found: list[Reading] = []
        fault = getattr(self, "_fault", "it was not started")
        if fault is None:
            fault = self._attempt(lambda: found.append(self._end()))
            self._attempt(self._release)
        self._fault = "it was not started again"
        return found[0] if fault is None else Reading(None, self.unit, "unavailable", fault)

    @staticmethod
    def _attempt(step: Callable[[], object]) -> str | None:
        """Why a step failed; None if it did not."""
        try:
            step()
        except Unavailable as reason:
            return str(reason)
        except Exception as error:  # a driver may fail in ways of its own; the run goes on
            return f"{type(error).__name__}: {error}"
        return None

    @abstractmethod
    def _begin(self) -> None:
        """Start measuring; ``Unavailable`` where that cannot be."""

    @abstractmethod
    def _end(self) -> Reading:
        """The reading; ``Unavailable`` where there is none."""

    def _release(self) -> None:
        """Give back what ``_begin`` took, also if it failed half-way."""


class WallTime(Meter):
    """Seconds on the clock."""

    unit = "s"

    def _begin(self) -> None:
        self.before = time.perf_counter()

    def _end(self) -> Reading:
        return Reading(time.perf_counter() - self.before, self.unit, "timer")


class CpuTime(Meter):
    """Seconds of processor time, user and system, of all threads and of the children that have ended."""

    unit = "s"

    def _begin(self) -> None:
        self.before = self._spent()

    def _end(self) -> Reading:
        return Reading(self._spent() - self.before, self.unit, "getrusage", "children count once they have ended")

    @staticmethod
    def _spent() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in used)


class Poll(Generic[Sample]):
    """Reads a value again and again in a thread: at the start, every so many seconds, and at the end.

    ``stop`` returns the samples with the seconds since the start at which each was taken. It raises what the first
    read that failed raised: after a gap, a peak or an integral would be wrong.
    """

    def __init__(self, read: Callable[[], Sample], every: float) -> None:
        self.read, self.every = read, every
        self.samples: list[tuple[float, Sample]] = []
        self.fault: Exception | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._begin = 0.0

    def start(self) -> None:
        """Take the first sample here, so that a read that never works fails at once."""
        self._begin = time.perf_counter()
        self._take()
        self._thread.start()

    def stop(self) -> list[tuple[float, Sample]]:
        self.end()
        if self.fault is None:
            self._take()
            return self.samples
        raise self.fault

    def end(self) -> None:
        """End the thread."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def _take(self) -> None:
        value = self.read()
        self.samples.append((time.perf_counter() - self._begin, value))

    def _loop(self) -> None:
        while not self._done.wait(self.every):
            try:
                self._take()
            except Exception as error:  # raised by stop, in the thread that can deal with it
                self.fault = error
                return
