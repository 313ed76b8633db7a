"""Choosing on the held-out split: which member is best, and which of several candidate models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from harness.evaluate.predictions import predict
from harness.fitting import accuracy, nll
from harness.models import forward
from harness.types import Member, Split

Score = tuple[float, float]
"""Accuracy, then minus the negative log-likelihood (or the other way round): larger is better."""


def score(log_probs: Tensor, labels: Tensor, criterion: str = "accuracy") -> Score:
    """The held-out score of predictions [N, C]: first what choices go by (``Split.criterion``), then the other."""
    found = accuracy(log_probs, labels), -nll(log_probs, labels)
    return found if criterion == "accuracy" else found[::-1]


def ranking(
    members: Sequence[Member], stacked: Tensor, labels: Tensor, criterion: str = "accuracy"
) -> list[int]:
    """Positions of the members from best to worst on these predictions [M, N, C]; names break exact ties."""
    scores = [score(log_probs, labels, criterion) for log_probs in stacked]
    return sorted(range(len(members)), key=lambda k: (-scores[k][0], -scores[k][1], members[k].name))


def predict_module(module: nn.Module, split: Split) -> Tensor:
    """Log-probabilities [N, C] of a network."""
    return predict(lambda batch: forward.log_probs(module, batch), split)


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
        predictions = predict_module(module, split)
        found = score(predictions, split.labels, split.criterion)
        accurate, likely = score(predictions, split.labels)
        curve.append({"scale": scale, "accuracy": accurate, "nll": -likely})
        wanted = (-found[0], -found[1]) if lowest else found
        if best is None or wanted > best[0]:
            best = (wanted, scale, module)
    assert best is not None
    return best[1], best[2], curve
