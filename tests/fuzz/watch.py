"""One reading of one input: what came of it, how long it took, and how much memory."""

from __future__ import annotations

import contextlib
import io
import resource
import signal
import socket
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.cli.main import LONGEST, PLACES
from harness.errors import BadInput

SECONDS = 2.0
"""Of a processor, for one input, beyond what the same takes undamaged."""
BYTES = 10**9
"""Of memory, for one input."""
ROOM = 6 * 2**30
"""Of address space beyond what is taken already: an input that asks for more is told, and the machine is not harmed."""


class Hang(BaseException):
    """An input took too long; no handler of exceptions takes it."""


class Network(BaseException):
    """An input made something reach for the network."""


@dataclass(frozen=True)
class Reading:
    """What came of an input."""

    outcome: Literal["taken", "refused", "fault"]
    seconds: float
    bytes: int
    """The highest use of memory on the way, beyond that before."""
    words: str = ""
    """The line of a refusal, or what went wrong."""
    trace: str = ""


def watch(read: Callable[[], Any], usual: float = 0.0) -> Reading:
    """Call a reader on one input: it may return, or refuse in one line, as the command does with exit code 2.

    Args:
        read: the reader.
        usual: seconds that it takes for an input that is whole.
    """
    before = _reset_peak()
    start = time.process_time()
    outcome, words, trace = "taken", "", ""
    try:
        with _limited(SECONDS + usual), silent():
            read()
    except (BadInput, OSError) as error:
        words = _line_of(error)
        outcome = "refused" if words else "fault"
        if outcome == "fault":
            words, trace = repr(error)[:300], traceback.format_exc()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome, words, trace = "fault", f"{type(error).__name__}: {str(error)[:300]}", traceback.format_exc()
    seconds, peak = time.process_time() - start, max(0, _status("VmHWM") - before)
    if outcome != "fault" and peak > BYTES:
        outcome, words = "fault", f"{peak / 1e9:.2f} GB of memory; {words}"
    return Reading(outcome, seconds, peak, words, trace)  # type: ignore[arg-type]


def _line_of(error: BadInput | OSError) -> str:
    """What the command prints for an error that is a user's; empty where it would print a traceback."""
    if isinstance(error, BadInput):
        line = str(error)
        return line if line and "\n" not in line and len(line) < 50 * LONGEST else ""
    return error.strerror or "" if error.errno in PLACES else ""


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Too much time, memory or any network ends the block."""

    def late(number: int, frame: Any) -> None:
        raise Hang(f"more than {seconds:.1f} s")

    def reach(*arguments: Any, **options: Any) -> None:
        raise Network(repr(arguments[-1])[:100])

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    connect, look_up = socket.socket.connect, socket.getaddrinfo
    handler = signal.signal(signal.SIGVTALRM, late)
    socket.socket.connect = socket.getaddrinfo = reach  # type: ignore[method-assign,assignment]
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + ROOM, hard))
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        socket.socket.connect, socket.getaddrinfo = connect, look_up  # type: ignore[method-assign]


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """What a block prints or warns of goes nowhere."""
    out, err = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with out, err, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _reset_peak() -> int:
    """Forget the highest use of memory so far; returns the present one in bytes."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0)
