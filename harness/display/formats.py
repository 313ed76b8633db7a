"""Numbers and names as a reader sees them; a missing one is a dash."""

from __future__ import annotations

import math
import re
from typing import Any

DASH = "–"
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
MINUS = "−"


def missing(value: Any) -> bool:
    """Whether a cell holds nothing."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _sign(text: str) -> str:
    return text.replace("-", MINUS)


def percent(value: Any, digits: int = 2) -> str:
    """A share as a percentage: 96.07 %."""
    return DASH if missing(value) else f"{100 * value:.{digits}f} %"


def percent_interval(low: Any, high: Any) -> str:
    """An interval of shares: 95.33 .. 96.76."""
    return "" if missing(low) else f"{100 * low:.2f} .. {100 * high:.2f}"


def points(value: Any, digits: int = 2) -> str:
    """A difference of shares in percentage points, signed: +0.37."""
    return DASH if missing(value) else _sign(f"{100 * value:+.{digits}f}")


def points_interval(low: Any, high: Any) -> str:
    """An interval of differences in percentage points."""
    return "" if missing(low) else _sign(f"{100 * low:+.2f} .. {100 * high:+.2f}")


def number(value: Any, digits: int = 3) -> str:
    """A plain number with fixed digits."""
    return DASH if missing(value) else _sign(f"{value:.{digits}f}")


def scored(value: Any, is_share: bool) -> str:
    """A score: a share in per cent, anything else with three digits."""
    return percent(value) if is_share else number(value)


def score_interval(low: Any, high: Any, is_share: bool) -> str:
    """An interval of scores."""
    if is_share or missing(low):
        return percent_interval(low, high)
    return f"{number(low)} .. {number(high)}"


def difference(value: Any, is_share: bool) -> str:
    """A difference of scores, signed: of shares in points."""
    return points(value) if is_share else DASH if missing(value) else _sign(f"{value:+.3f}")


def difference_interval(low: Any, high: Any, is_share: bool) -> str:
    """An interval of differences of scores."""
    if is_share or missing(low):
        return points_interval(low, high)
    return _sign(f"{low:+.3f} .. {high:+.3f}")


def ratio(value: Any) -> str:
    """How many times as much: 7.1x, 0.28x."""
    if missing(value):
        return DASH
    return f"{value:.1f}×" if value >= 10 else f"{value:.2f}×"


def amount(value: Any) -> str:
    """A count with a prefix: 2.23 M."""
    if missing(value):
        return DASH
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.2f} {prefix}"
    return f"{value:.0f}"


def megabytes(value: Any) -> str:
    """Bytes in MB (1e6)."""
    return DASH if missing(value) else f"{value / 1e6:.0f} MB"


def read_bytes(text: str | int) -> int:
    """Bytes as people write them: 24000000000, 24_000_000_000, 24e9, 24GB, 80 GiB; ``ValueError`` for anything else."""
    match = re.fullmatch(r"([0-9][0-9_]*\.?[0-9]*(?:e[0-9]+)?) *([kmgt]?i?)b?", str(text).strip().lower())
    size = float(match[1].replace("_", "")) * UNITS.get(match[2], 0) if match else 0.0
    count = int(size) if math.isfinite(size) else 0
    if not count:
        raise ValueError("it should be an amount of memory, such as 24GB, 80GiB or 24e9")
    return count


def bytes_more(value: float) -> str:
    """A difference in bytes, in words: 1.20 MB more."""
    return f"{amount(abs(value))}B {'more' if value >= 0 else 'less'}"


def joules(value: Any) -> str:
    """Joules with a prefix: 12.3 mJ."""
    if missing(value):
        return DASH
    for size, prefix in ((1, ""), (1e-3, "m"), (1e-6, "µ")):
        if abs(value) >= size:
            return _sign(f"{value / size:.3g} {prefix}J")
    return _sign(f"{value:.2g} J")


def seconds(value: Any) -> str:
    """Seconds with the digits that matter."""
    if missing(value):
        return DASH
    return f"{value:.0f} s" if value >= 10 else f"{value:.2f} s"


COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def counted(value: Any) -> str:
    """A small count as a word, as prose has it: eight; anything else as it is."""
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(COUNTS)
    return COUNTS[value] if whole else f"{value:g}" if isinstance(value, float) else str(value)


def quantity(value: Any, unit: str) -> str:
    """A number in a unit of ``results.metric.Column``, which may be none."""
    if unit == "bytes":
        return megabytes(value)
    if unit in ("s", "J"):
        return seconds(value) if unit == "s" else joules(value)
    return number(value) if missing(value) or abs(value) < 1e4 else amount(value)


def inline_code(name: str) -> str:
    """A name as Markdown code, safe in a table."""
    return "`" + name.replace("`", "'").replace("|", "\\|").replace("\n", " ") + "`"


def plain_text(text: Any) -> str:
    """Text from a run, safe in Markdown."""
    result = str(text).replace("\n", " ")
    for character, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        result = result.replace(character, written)
    return "".join(f"\\{character}" if character in "\\|`[]*_" else character for character in result)


def printable(text: str) -> str:
    """Text without control characters, which could move a terminal's cursor and are not allowed in XML."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
