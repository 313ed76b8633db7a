"""The straight line between two models' weights: the loss along it, and the barrier that it meets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harness.evaluate.heldout import predict_module, score
from harness.merging.arithmetic import Weights, weighted_sum
from harness.systems.parts import CPU
from harness.systems.systems import merged_model
from harness.types import Architecture, Split

POINTS = 11

Curve = list[dict[str, float]]
"""One entry for each point, from the first model (``a`` is 0) to the second (1), with its ``nll`` and ``accuracy``."""


def interpolate(
    architecture: Architecture,
    first: Weights,
    second: Weights,
    train_inputs: Tensor,
    split: Split,
    device: torch.device = CPU,
) -> Curve:
    """Scores on a split of ``(1 - a) first + a second`` at 11 equal steps of a.

    BatchNorm statistics that the two do not share are measured on the training inputs at every point, the ends too, so
    that all are alike.
    """
    curve = []
    for step in range(POINTS):
        a = step / (POINTS - 1)
        weights = weighted_sum([first, second], [1 - a, a])
        module = merged_model(architecture, weights, [first, second], train_inputs, device)
        accuracy, likelihood = score(predict_module(module, split), split.labels)
        curve.append({"a": a, "nll": -likelihood, "accuracy": accuracy})
    return curve


def barrier(curve: Sequence[Mapping[str, float]]) -> float:
    """``max_a [L(theta_a) - ((1 - a) L_1 + a L_2)]`` in nats (Entezari et al. 2022, arXiv:2110.06296, definition 3.1).

    Never below 0, which it is at the ends: a loss that dips under the line between them has no barrier.
    """
    first, last = curve[0]["nll"], curve[-1]["nll"]
    return max(point["nll"] - ((1 - point["a"]) * first + point["a"] * last) for point in curve)
