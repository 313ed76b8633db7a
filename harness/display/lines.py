"""Text that others wrote, as text that a terminal, a file and CI act on nowhere: for reasons, errors, lists, tables."""

from __future__ import annotations

import re
import unicodedata

MOST = 500
"""Characters of a reason."""


_ODD = re.compile(r"[^ -~]")


def one_line(text: object, most: int = MOST) -> str:
    """The text with one space for each white space, printable, at most ``most`` characters long.

    What a terminal, a file or CI would act on is written as an escape such as ``\\x1b``: control characters, halves of
    surrogate pairs, and what begins a command of GitHub's runner (``::`` at the start, ``##[`` anywhere). Of a longer
    text the beginning stays, and how many characters there were. A line made by this function stays as it is.
    """
    whole = text if isinstance(text, str) else said_by(text)
    line = plain_line(" ".join(whole[: 4 * most].split()))
    if len(line) <= most and len(whole) <= 4 * most:
        return line
    told = f"… ({len(whole):,} characters)"
    return line[: most - len(told)] + told


def text_cell(text: object) -> str:
    """As ``one_line``, for a cell of a CSV: with an apostrophe before what a spreadsheet would take for a formula."""
    line = one_line(text)
    return one_line(f"'{line}") if line.startswith(("=", "+", "-", "@")) else line


def plain_line(text: str) -> str:
    """The text as one line with the same spaces in it, of any length; with the escapes of ``one_line``."""
    line = escaped(text).replace("##[", r"#\x23[")
    at = len(line) - len(line.lstrip())  # GitHub's runner passes over spaces before a command
    return rf"{line[:at]}\x3a{line[at + 1 :]}" if line[at:].startswith("::") else line


def escaped(text: str, keep: str = "") -> str:
    """The text with escapes for control characters and whatever else is not printable, but for those in ``keep``."""

    def shown(found: re.Match[str]) -> str:
        odd = found[0]
        if odd in keep or odd.isprintable() or unicodedata.category(odd) == "Zs":
            return odd
        return repr(odd)[1:-1]

    return _ODD.sub(shown, text)


def said_by(value: object) -> str:
    """What a value says of itself, also where that raises: exceptions are written by others too."""
    try:
        return str(value)
    except Exception as error:
        return f"(its text cannot be had: {type(error).__name__})"
