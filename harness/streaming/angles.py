"""Rules whose result is a weighted sum of the sources, with coefficients that follow from their inner products.

So a tensor is read twice, for the inner products and for the sum, and nothing as large as it is held. This module is
read without torch. Source: mergekit 0.1.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from harness.merging.inner_products import arc, stock_ratio
from harness.streaming.plan import Step

NORM_FLOOR = 1e-7
"""The least norm by which nuslerp divides a vector to find its direction."""

PARALLEL = 1e-14
"""From this squared sine down two vectors have one direction or opposite ones, and nuslerp takes the chord.

mergekit has 1e-16, which is less than the rounding of a squared cosine: for opposite vectors it gives the chord or
something huge, by chance.
"""

PRODUCT_FLOOR = 1e-6
"""The least product of two norms by which model_stock divides, which draws small task vectors to the base."""

RESOLUTION = 1e-7
"""The least length of a sum of unit vectors that their inner products tell from 0 in float64."""


def needs_gram(rule: str, shared: Mapping[str, Any]) -> Literal["sources", "differences"] | None:
    """Between what ``coefficients`` wants the inner products: the sources, or what each changes in the base.

    Differences where there is a base; the sources where there is none, as nuslerp may have none. None where the rule
    with these parameters is not a weighted sum of whole tensors.
    """
    if rule in ("slerp", "karcher"):
        return "sources"
    by_rows = (rule == "nuslerp" and not shared["nuslerp_flatten"]) or (rule == "model_stock" and shared["filter_wise"])
    return "differences" if rule in ("nuslerp", "model_stock") and not by_rows else None


def coefficients(step: Step, gram: np.ndarray) -> list[float]:
    """What each source is multiplied by, the base too, so that their sum is the merged tensor.

    Args:
        step: of a rule that ``needs_gram`` says to have such coefficients.
        gram: the inner products [S, S] in float64, for the sources in their order: of what ``needs_gram`` says, the
            base's row and column being 0 for "differences".
    """
    return coefficient_rows(step, gram).tolist()


def coefficient_rows(step: Step, grams: np.ndarray) -> np.ndarray:
    """``coefficients`` [..., S] of many vectors at once, such as the rows of a tensor, from their products [..., S, S].

    Of nuslerp and model_stock, whatever their parameters; slerp and karcher have whole tensors alone.
    """
    if step.rule == "slerp":
        return _slerp(grams, step)
    if step.rule == "karcher":
        return _karcher(grams, step.shared["max_iter"], step.shared["tol"])
    others = [i for i in range(len(step.sources)) if i != step.base]
    if step.rule == "model_stock":
        shares = stock_ratio(grams[..., others, :][..., others], PRODUCT_FLOOR) / len(others)
        moved = np.repeat(shares[..., None], len(others), axis=-1)
    else:
        first, second = (step.each["weight"][i] for i in others)
        total = first + second
        moved = _nuslerp(grams[..., others, :][..., others], 0.5 if abs(total) < 1e-6 else second / total)
    found = np.zeros(grams.shape[:-1])
    found[..., others] = moved
    if step.base is not None:
        found[..., step.base] = 1 - moved.sum(axis=-1)
    return found


def _slerp(gram: np.ndarray, step: Step) -> np.ndarray:
    base = step.base
    assert base is not None
    other = 1 - base
    found = np.empty(2)
    found[[base, other]] = arc([gram[base, base], gram[other, other], gram[base, other]], step.shared["t"])
    return found


def _nuslerp(grams: np.ndarray, t: float) -> np.ndarray:
    """The factors [..., 2] of two vectors at t of their arc, or of their chord where they have one direction."""
    norms = _norms(grams).clip(min=NORM_FLOOR)
    cosine = (grams[..., 0, 1] / norms[..., 0] / norms[..., 1]).clip(-1, 1)
    chord = 1 - cosine**2 <= PARALLEL
    angle = np.arccos(np.where(chord, 0.0, cosine))
    sine = np.where(chord, 1.0, np.sin(angle))
    arcs = np.stack([np.sin((1 - t) * angle) / sine, np.sin(t * angle) / sine], axis=-1)
    return np.where(chord[..., None], [1 - t, t], arcs)


def _karcher(gram: np.ndarray, max_iter: int, tol: float) -> np.ndarray:
    """Coefficients [S] of the mean of directions on the sphere, by gradient descent in the basis of the unit vectors.

    What lies opposite to the mean does not pull it: all ways lead there, and mergekit takes one that rounding chooses.
    """
    if len(gram) == 1:
        return np.ones(1)
    norms, least = _norms(gram), max(tol, RESOLUTION)
    valid = norms > tol
    found = np.zeros(len(gram))
    if not valid.any():
        return found
    cosines = gram[np.ix_(valid, valid)] / np.outer(norms[valid], norms[valid])
    share = 1 / len(cosines)
    mean = np.full(len(cosines), share)
    size = _length(mean, cosines)
    mean = np.eye(len(cosines))[0] if size < least else mean / size
    for _ in range(max_iter):
        dots = (cosines @ mean).clip(-1, 1)
        angles = np.arccos(dots)
        moving = (angles >= tol) & (dots**2 < 1 - PARALLEL)
        pulls = share * np.where(moving, angles / np.sin(np.where(moving, angles, 1.0)), 0.0)
        tangent = pulls - (pulls @ dots) * mean
        size = _length(tangent, cosines)
        if size < least:
            break
        mean = np.cos(size) * mean + np.sin(size) / size * tangent
        mean = mean / _length(mean, cosines)
    found[valid] = norms.mean() * mean / norms[valid]
    return found


def _norms(grams: np.ndarray) -> np.ndarray:
    return np.sqrt(np.diagonal(grams, axis1=-2, axis2=-1))


def _length(vector: np.ndarray, products: np.ndarray) -> float:
    """The norm of a vector that is given in a basis with these inner products."""
    return float(np.sqrt(max(0.0, vector @ products @ vector)))
