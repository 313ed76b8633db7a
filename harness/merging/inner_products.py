"""How far to go between vectors, from their inner products alone: read without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

NEARLY_PARALLEL = 0.9995
"""From this cosine on (and below its negative) the arc is taken for its chord, as mergekit does."""

ZERO = 1e-8
"""A tensor whose norm is at most this has no direction and counts as orthogonal to any other."""

SINGULAR = 1e-6
"""Below this denominator model stock has no finite ratio, and the base is kept, as mergekit does."""


def arc(products: Sequence[float], t: float) -> tuple[float, float]:
    """The factors of two vectors at t of the arc between them, from ``[a.a, b.b, a.b]`` (Shoemake 1985)."""
    norms = [norm if norm > ZERO else 1.0 for norm in map(math.sqrt, products[:2])]
    cosine = min(max(products[2] / (norms[0] * norms[1]), -1.0), 1.0)
    if abs(cosine) > NEARLY_PARALLEL:
        return 1 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def stock_ratio(grams: np.ndarray, norm_floor: float = 0.0) -> np.ndarray:
    """``k c / (1 + (k - 1) c)`` [...], c the mean cosine of k task vectors, from products [..., k, k] (Model Stock).

    ``norm_floor`` is the least product of two norms by which is divided; a task vector of norm 0 is orthogonal to any
    other.
    """
    norms, count = np.sqrt(np.diagonal(grams, axis1=-2, axis2=-1)), grams.shape[-1]
    total = np.zeros(grams.shape[:-2])
    pairs = list(combinations(range(count), 2))
    for a, b in pairs:
        product = (norms[..., a] * norms[..., b]).clip(min=norm_floor)
        total += np.divide(grams[..., a, b], product, out=np.zeros_like(total), where=product > 0).clip(-1, 1)
    cosine = total / len(pairs)
    denominator = 1 + (count - 1) * cosine
    singular = np.abs(denominator) < SINGULAR
    return np.where(singular, 0.0, count * cosine / np.where(singular, 1.0, denominator))
