"""What cells of a user's table mean: labels, ids and texts; what is missing is refused, and nothing is guessed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

UNLABELLED = -1
"""What ``datasets`` puts where a label is not known."""


class Fault(ValueError):
    """What is wrong with a cell, in words."""


def label_name(value: Any, classes: Sequence[str] | None) -> str:
    """The name of a label.

    Args:
        value: text, a whole number, or True or False.
        classes: where numbers stand for classes, the names of these.

    Raises:
        Fault: no label, or what is none.
    """
    if is_missing(value) or (isinstance(value, str) and value.strip().lower() in ("", "nan")):
        raise Fault("it has no label")
    if isinstance(value, float):
        raise Fault(f"the label is {value!r}; labels are text, whole numbers or true and false")
    if not isinstance(value, str | int):
        raise Fault(f"the label is {_a(value)}, not text or a whole number")
    if classes is None or isinstance(value, str):
        return _as_utf8(str(value))
    if value == UNLABELLED:
        raise Fault("it has no label (-1)")
    if not 0 <= value < len(classes):
        raise Fault(f"the label is {value}, and there are {len(classes)} classes, from 0")
    return classes[value]


def name_of(value: Any, what: str) -> str:
    """An id, or the name of a cluster or a split, as text; ``Fault`` where there is none."""
    if is_missing(value) or value == "":
        raise Fault(f"it has no {what}")
    if not isinstance(value, str | int):
        raise Fault(f"its {what} is {_a(value)}, not text or a whole number")
    return _as_utf8(str(value))


def text_of(value: Any) -> str:
    """A text; ``Fault`` for anything else."""
    if is_missing(value):
        raise Fault("it has no text")
    if not isinstance(value, str):
        raise Fault(f"its text is {_a(value)}")
    return _as_utf8(value)


def is_missing(value: Any) -> bool:
    """Whether a cell is empty, or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def in_order(names: Iterable[str]) -> list[str]:
    """Names of labels as they are counted: by number where all are whole numbers, else as text."""
    found = sorted(set(names))
    return sorted(found, key=int) if all(re.fullmatch(r"-?\d+", name, re.ASCII) for name in found) else found


def _as_utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Fault("half of a character (a lone surrogate) stands in it") from None
    return text


def _a(value: Any) -> str:
    words = {dict: "an object", list: "a list", bytes: "bytes", bool: "true or false", int: "a number",
             float: "a number"}  # fmt: skip
    return words.get(type(value), f"of the kind {type(value).__name__}")
