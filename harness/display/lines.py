"""Text that others wrote as one line of bounded length: for reasons, errors and lists."""

from __future__ import annotations

MOST = 500
"""Characters of a reason."""


def one_line(text: object, most: int = MOST) -> str:
    """The text with one space for each white space, printable, at most ``most`` characters long.

    What a terminal, a file or CI would act on is written as an escape such as ``\\x1b``: control characters, halves of
    surrogate pairs, and what begins a command of GitHub's runner (``::`` at the start, ``##[``). Of a longer text the
    beginning stays, and how many characters there were. A line made by this function stays as it is.
    """
    whole = text if isinstance(text, str) else said_by(text)
    line = escaped(" ".join(whole[: 4 * most].split()))
    if len(line) <= most and len(whole) <= 4 * most:
        return line
    told = f"… ({len(whole):,} characters)"
    return line[: most - len(told)] + told


def escaped(text: str, keep: str = "") -> str:
    """The text with escapes for whatever is not printable and not in ``keep``, and where a command of CI begins."""
    plain = text if text.isprintable() else "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)
    plain = plain.replace("##[", r"#\x23[")
    return rf"\x3a{plain[1:]}" if plain.startswith("::") else plain


def _escape(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode() if not character.isascii() else repr(character)[1:-1]


def said_by(value: object) -> str:
    """What a value says of itself, also where that raises: exceptions are written by others too."""
    try:
        return str(value)
    except Exception as error:
        return f"(its text cannot be had: {type(error).__name__})"
