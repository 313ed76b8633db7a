"""The draws of a tensor by their definition, in whole numbers: splitmix64 of a key and a counter."""

from __future__ import annotations

import hashlib
import json

WORD = (1 << 64) - 1


def uniform(seed: int, draws: str, name: str, count: int) -> list[float]:
    """Multiples of 2^-24 in [0, 1)."""
    text = json.dumps([seed, draws, name], separators=(",", ":"))
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return [(_mix(key + (index + 1) * 0x9E3779B97F4A7C15) >> 40) / (1 << 24) for index in range(count)]


def _mix(word: int) -> int:
    word &= WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
    return word ^ (word >> 31)
