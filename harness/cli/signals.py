"""SIGTERM and Ctrl-C end a command alike, wherever in it they come."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from harness.cli.start import end_at_once

TERMINATED = 143
"""The exit code of what SIGTERM has ended."""

AGAIN = 0.02
"""Seconds after which a signal is sent again whose error was dropped: what drops it is a few lines of a library."""


@contextmanager
def ended_by_signals(heard: list[int]) -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does: workers are ended, and what is half done is removed.

    Another one is not ignored. The exit code of each is put into ``heard``: code in C may make an error of its own of
    what is raised for a signal. Python prints and drops what is raised in a destructor or in another of its callbacks:
    nothing is printed then, and the signal is sent again.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    raised: BaseException | None = None

    def end(number: int, frame: FrameType | None) -> NoReturn:
        nonlocal raised
        heard.append(128 + number)
        raised = SystemExit(128 + number)  # after KeyboardInterrupt in exec() of a text, python -m kills itself
        raise raised

    def dropped(what: Any) -> None:
        if raised is None or not _is_or_hides(what.exc_value, raised):
            usual(what)
            return
        timer = threading.Timer(AGAIN, send, (heard[-1] - 128, len(heard)))
        timer.daemon = True
        timer.start()

    def send(number: int, count: int) -> None:
        if len(heard) == count and not over.is_set():  # another one may have ended the block meanwhile
            signal.pthread_kill(threading.main_thread().ident or 0, number)

    over = threading.Event()
    usual, sys.unraisablehook = sys.unraisablehook, dropped
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, end)}
    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, end_at_once):  # a caller may have its own
        before[signal.SIGINT] = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        over.set()
        raised = None  # its frames have this one: nothing of them would be freed, nor what waits to be closed in them
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        sys.unraisablehook = usual


def _is_or_hides(error: BaseException | None, raised: BaseException) -> bool:
    """Whether an error is what was raised, or came while that was being handled."""
    while error is not None and error is not raised:
        error = error.__context__
    return error is raised
