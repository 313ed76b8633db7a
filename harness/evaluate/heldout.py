"""Choosing on the held-out split: which member is best, and which of several candidate models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.evaluate.predictions import predict
from harness.fitting import accuracy, nll
from harness.types import Member, Split

Score = tuple[float, float]
"""Accuracy, then minus the negative log-likelihood: larger is better, and equal accuracies are told apart."""


def score(log_probs: Tensor, labels: Tensor) -> Score:
    """The held-out score of predictions [N, C]."""
    return accuracy(log_probs, labels), -nll(log_probs, labels)


def ranking(members: Sequence[Member], stacked: Tensor, labels: Tensor) -> list[int]:
    """Positions of the members from best to worst on these predictions [M, N, C]; names break exact ties."""
    scores = [score(log_probs, labels) for log_probs in stacked]
    return sorted(range(len(members)), key=lambda k: (-scores[k][0], -scores[k][1], members[k].name))


def predict_module(module: nn.Module, split: Split) -> Tensor:
    """Log-probabilities [N, C] of a network."""
    device = next(module.parameters()).device
    return predict(lambda batch: torch.log_softmax(module(batch.to(device)).float(), dim=-1), split)


def search_scale(
    grid: Sequence[float], build: Callable[[float], nn.Module], split: Split, *, lowest: bool = False
) -> tuple[float, nn.Module, list[dict[str, Any]]]:
    """The scale whose model scores best on a split (worst, if ``lowest``), that model, and the whole curve.

    The first of equals wins, so a grid in rising order prefers the smaller change.
    """
    best: tuple[Score, float, nn.Module] | None = None
    curve = []
    for scale in grid:
        module = build(scale)
        found = score(predict_module(module, split), split.labels)
        curve.append({"scale": scale, "accuracy": found[0], "nll": -found[1]})
        wanted = (-found[0], -found[1]) if lowest else found
        if best is None or wanted > best[0]:
            best = (wanted, scale, module)
    assert best is not None
    return best[1], best[2], curve
