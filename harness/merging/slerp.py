"""Spherical linear interpolation: from one model to another along the arc between them (Shoemake 1985)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from harness.merging.arithmetic import Weights, floating_names, streamed

NEARLY_PARALLEL = 0.9995
"""From this cosine on (and below its negative) the arc is taken for its chord, as mergekit does."""

ZERO = 1e-8
"""A tensor whose norm is at most this has no direction and counts as orthogonal to any other."""


def slerp(first: Weights, second: Weights, t: float, scope: Literal["tensor", "model"] = "tensor") -> dict[str, Tensor]:
    """``sin((1-t) w) / sin w * first + sin(t w) / sin w * second``, w the angle between them.

    Args:
        first: the model at t = 0.
        second: the model at t = 1.
        t: the share of the angle that is gone.
        scope: "tensor" takes the angle of each tensor, flattened (as mergekit 0.1.5 does); "model" takes one angle
            of all floating-point tensors together, and reads each of them twice.
    """
    shared = None
    if scope == "model":
        shared = arc(sum((_products(first[n], second[n]) for n in floating_names(first)), torch.zeros(3).double()), t)

    def combine(tensors: list[Tensor]) -> Tensor:
        left, right = shared or arc(_products(*tensors), t)
        return left * tensors[0] + right * tensors[1]

    return streamed([first, second], combine)


def arc(products: Tensor, t: float) -> tuple[float, float]:
    """The factors of two vectors at t, from their inner products ``[a.a, b.b, a.b]``."""
    norms = [norm if norm > ZERO else 1.0 for norm in products[:2].sqrt().tolist()]
    cosine = min(max(float(products[2]) / (norms[0] * norms[1]), -1.0), 1.0)
    if abs(cosine) > NEARLY_PARALLEL:
        return 1 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def _products(first: Tensor, second: Tensor) -> Tensor:
    a, b = first.flatten().double(), second.flatten().double()
    return torch.stack([a @ a, b @ b, a @ b]).cpu()
