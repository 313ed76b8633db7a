"""Ends a call as a signal does: at any of its instructions, once."""

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any


class Signalled(BaseException):
    """What the handler of a signal raises."""


def interrupted_everywhere(act: Callable[[], None], *modules: Any) -> Iterator[int]:
    """Call ``act`` until nothing ends it any more: first before its first instruction, then before its second, and so
    on, of those in its own file, in these modules and in contextlib.

    Yields:
        The number of the instruction, after each call that was ended; the error is gone by then.
    """
    files = {act.__code__.co_filename, contextlib.__file__, *(module.__file__ for module in modules)}
    for number in itertools.count():
        if not _ended_at(number, act, files):
            return
        yield number


def _ended_at(number: int, act: Callable[[], None], files: set[str]) -> bool:
    left = number

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left < 0:
                raise Signalled  # Python ends the tracing with it
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    except Signalled:
        return True
    finally:
        sys.settrace(before)
    return False
