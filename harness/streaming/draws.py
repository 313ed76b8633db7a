"""Uniform draws that belong to a seed, a model and a tensor: the n-th is known without those before it.

So a tensor may be cut in pieces, in any order and on any number of threads, and its mask is the same. The generator is
splitmix64 (Steele, Lea and Flood, OOPSLA 2014) of a key and a counter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.keys import digest

if TYPE_CHECKING:
    import numpy as np

STRIDE = 0x9E3779B97F4A7C15
"""What the counter is multiplied by: 2^64 over the golden ratio, made odd."""

_BLOCK = 1 << 15
"""Draws made at a time, so that the words between stay in a cache."""


def key(seed: int, draws: str, name: str) -> int:
    """The 64 bits that identify a tensor's draws, by the seed, its model's entry in ``Step.draws`` and its name."""
    return int(digest([seed, draws, name])[:16], 16)


def uniform(key: int, start: int, count: int) -> np.ndarray:
    """The draws of the elements from ``start`` on, [count] in float32: multiples of 2^-24 in [0, 1)."""
    import numpy as np

    drawn = np.empty(count, np.float32)
    for at in range(0, count, _BLOCK):
        end = min(at + _BLOCK, count)
        words = np.arange(start + at + 1, start + end + 1, dtype=np.uint64)
        words *= np.uint64(STRIDE)
        words += np.uint64(key)
        words ^= words >> np.uint64(30)
        words *= np.uint64(0xBF58476D1CE4E5B9)
        words ^= words >> np.uint64(27)
        words *= np.uint64(0x94D049BB133111EB)
        words ^= words >> np.uint64(31)
        drawn[at:end] = (words >> np.uint64(40)) * 2.0**-24
    return drawn
