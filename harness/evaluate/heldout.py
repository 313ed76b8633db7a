"""Choosing on the held-out split: which member is best, and which of several candidate models."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from harness.evaluate.predictions import predict
from harness.models import forward
from harness.systems.fitting import accuracy, nll
from harness.types import Member, Split

Score = tuple[float, float]
"""Accuracy, then minus the negative log-likelihood (or the other way round): larger is better."""


def score(log_probs: Tensor, labels: Tensor, criterion: str = "accuracy") -> Score:
    """The held-out score of predictions [N, C]: first what choices go by (``Split.criterion``), then the other."""
    found = accuracy(log_probs, labels), -nll(log_probs, labels)
    return found if criterion == "accuracy" else found[::-1]


def ranking(
    members: Sequence[Member], predictions: Iterable[Tensor], labels: Tensor, criterion: str = "accuracy"
) -> list[int]:
    """Positions of the members from best to worst on their predictions [N, C]; names break exact ties."""
    scores = [score(log_probs, labels, criterion) for log_probs in predictions]
    return sorted(range(len(members)), key=lambda k: (-scores[k][0], -scores[k][1], members[k].name))


def predict_module(module: nn.Module, split: Split) -> Tensor:
    """Log-probabilities [N, C] of a network."""
    return predict(lambda batch: forward.log_probs(module, batch), split)


@dataclass(frozen=True)
class Search:
    """What a search over scales found, and what it cost."""

    scale: Any
    """The chosen scale; of a search by layer, each layer's by its name."""
    module: nn.Module
    """The model with it."""
    curve: list[dict[str, Any]]
    """Accuracy and NLL of every scale of the grid (the same in all layers), in the grid's order."""
    evaluations: int
    """How many candidates were run on held-out."""
    seconds: float

    @property
    def details(self) -> dict[str, Any]:
        """What the report shows of it: the choice, the curve, and the cost."""
        cost = {"heldout_evaluations": self.evaluations, "search_seconds": self.seconds}
        return {"scale": self.scale, "curve": self.curve, **cost}


def search(
    grid: Sequence[float], build: Callable[[float], nn.Module], split: Split, *, lowest: bool = False
) -> Search:
    """The scale whose model scores best on a split (worst, if ``lowest``).

    The first of equals wins, so a grid in rising order prefers the smaller change. ``build`` may hand out the same
    module each time (``merging.scaled.ScaledTaskVector``), its weights overwritten: the best is then built again.
    """
    trials = _Trials(lambda scales: build(scales[0]), split, lowest)
    (scale,) = trials.best_shared(grid, 1)
    return trials.result(scale, (scale,))


def search_layer_scales(
    layers: Sequence[str],
    grid: Sequence[float],
    build: Callable[[Mapping[str, float]], nn.Module],
    split: Split,
    *,
    sweeps: int = 1,
    lowest: bool = False,
) -> Search:
    """A scale for each layer by coordinate search, from the best shared one: on this split it is never worse than that.

    Layers are visited in their order, and each takes the scale of the grid that scores best while the others stay, if
    that is strictly better. A sweep that changes nothing is the last. At most ``(1 + sweeps * layers) * grid``
    candidates are run.

    Args:
        layers: their names.
        grid: the scales that are tried.
        build: from each layer's scale to the model; may hand out the same module each time, as in ``search``.
        split: what is scored.
        sweeps: how often all layers are visited at most.
        lowest: look for the worst instead.
    """
    trials = _Trials(lambda scales: build(dict(zip(layers, scales, strict=True))), split, lowest)
    best = trials.best_shared(grid, len(layers))
    for _ in range(sweeps):
        for axis in range(len(layers)):
            for scale in grid:
                candidate = (*best[:axis], scale, *best[axis + 1 :])
                if trials.score(candidate) > trials.score(best):
                    best = candidate
    return trials.result(dict(zip(layers, best, strict=True)), best)


class _Trials:
    """Candidates, given by their scales; each is built and scored once."""

    def __init__(self, build: Callable[[tuple[float, ...]], nn.Module], split: Split, lowest: bool) -> None:
        self.build, self.split, self.lowest = build, split, lowest
        self.scores: dict[tuple[float, ...], Score] = {}
        self.curve: list[dict[str, Any]] = []
        self.begin = time.perf_counter()

    def score(self, scales: tuple[float, ...]) -> Score:
        """A candidate's score: the larger, the more it is wanted."""
        if scales not in self.scores:
            predictions = predict_module(self.build(scales), self.split)
            found = score(predictions, self.split.labels, self.split.criterion)
            self.scores[scales] = (-found[0], -found[1]) if self.lowest else found
        return self.scores[scales]

    def best_shared(self, grid: Sequence[float], axes: int) -> tuple[float, ...]:
        """The first best of the candidates that have one scale along all axes; they are the curve."""
        candidates = [(scale,) * axes for scale in grid]
        for scale, candidate in zip(grid, candidates, strict=True):
            found = [-value if self.lowest else value for value in self.score(candidate)]
            accurate, likely = found if self.split.criterion == "accuracy" else found[::-1]
            self.curve.append({"scale": scale, "accuracy": accurate, "nll": -likely})
        return max(candidates, key=self.score)

    def result(self, scale: Any, scales: tuple[float, ...]) -> Search:
        """The search's outcome, its model built again: a later candidate may have overwritten it."""
        module = self.build(scales)
        return Search(scale, module, self.curve, len(self.scores), time.perf_counter() - self.begin)
