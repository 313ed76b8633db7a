"""Spherical linear interpolation: from one model to another along the arc between them (Shoemake 1985)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from harness.merging.arithmetic import Weights, floating_names, streamed
from harness.merging.inner_products import arc


def slerp(first: Weights, second: Weights, t: float, scope: Literal["tensor", "model"] = "tensor") -> Weights:
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
        total = sum((_products(first[n], second[n]) for n in floating_names(first)), torch.zeros(3).double())
        shared = arc(total.tolist(), t)

    def combine(tensors: list[Tensor]) -> Tensor:
        left, right = shared or arc(_products(*tensors).tolist(), t)
        return left * tensors[0] + right * tensors[1]

    return streamed([first, second], combine)


def _products(first: Tensor, second: Tensor) -> Tensor:
    a, b = first.flatten().double(), second.flatten().double()
    return torch.stack([a @ a, b @ b, a @ b]).cpu()
