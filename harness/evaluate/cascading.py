"""A cascade's thresholds on held-out: what each choice of them costs and scores, and which one is taken."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from harness.evaluate.heldout import Score

SETTINGS = 4000
"""Choices of thresholds that are tried, about; of two stages every one that makes a difference."""


class Costed(Protocol):
    """A setting of any system that costs something and has a score."""

    @property
    def cost(self) -> float: ...

    def score(self, criterion: str) -> Score: ...


Setting = TypeVar("Setting", bound=Costed)


@dataclass(frozen=True, eq=False)
class Stages:
    """What the stages of a cascade say of the same examples."""

    certainties: np.ndarray
    """[S - 1, N] of all but the last, in 0..1: what thresholds are compared with."""
    correct: np.ndarray
    """[S, N]."""
    likelihoods: np.ndarray
    """[S, N] log-probabilities of the truth."""
    costs: np.ndarray
    """[S], of all that has run once a stage has answered; never falling."""

    @staticmethod
    def of(
        certainties: Sequence[Tensor], log_probs: Sequence[Tensor], labels: Tensor, costs: Sequence[float]
    ) -> Stages:
        """From certainties [N] and log-probabilities [N, C] of each stage."""
        rows = torch.arange(len(labels))
        return Stages(
            torch.stack(list(certainties)).double().numpy() if certainties else np.zeros((0, len(labels))),
            torch.stack([said.argmax(dim=-1) == labels for said in log_probs]).numpy(),
            torch.stack([said[rows, labels].double() for said in log_probs]).numpy(),
            np.asarray(costs, np.float64),
        )

    def stops(self, thresholds: Sequence[float]) -> np.ndarray:
        """The stage that answers each example, [N]."""
        accepts = [certainty >= at for certainty, at in zip(self.certainties, thresholds, strict=True)]
        return np.argmax([*accepts, np.ones(self.correct.shape[1], bool)], axis=0)

    def point(self, thresholds: Sequence[float]) -> Point:
        """What these thresholds cost and score."""
        stops, rows = self.stops(thresholds), np.arange(self.correct.shape[1])
        accuracy, likelihood = (float(values[stops, rows].mean()) for values in (self.correct, self.likelihoods))
        return Point(tuple(thresholds), float(self.costs[stops].mean()), accuracy, likelihood)

    def alone(self, stage: int) -> tuple[float, float]:
        """Accuracy and mean log-likelihood of a stage that answers everything."""
        return float(self.correct[stage].mean()), float(self.likelihoods[stage].mean())


@dataclass(frozen=True)
class Point:
    """One choice of thresholds on the examples that it was tried on."""

    thresholds: tuple[float, ...]
    cost: float
    """Mean over the examples."""
    accuracy: float
    likelihood: float

    def score(self, criterion: str) -> Score:
        """As ``heldout.score`` has it."""
        return in_order(self.accuracy, self.likelihood, criterion)

    def told(self) -> dict[str, Any]:
        """As JSON values, to six digits: the system itself has all of them."""
        found = {"cost": self.cost, "accuracy": self.accuracy, "nll": -self.likelihood}
        return {"thresholds": [_short(at) for at in self.thresholds], **{k: _short(v) for k, v in found.items()}}


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def in_order(accuracy: float, likelihood: float, criterion: str) -> Score:
    """First what choices go by."""
    return (accuracy, likelihood) if criterion == "accuracy" else (likelihood, accuracy)


def curve(stages: Stages) -> list[Point]:
    """Choices of thresholds from the cheapest to the dearest, all that matter or ``SETTINGS`` of them.

    Thresholds lie half way between the certainties that are seen, and above all of them: no example of the kind is on
    the edge.
    """
    most = max(2, round(SETTINGS ** (1 / max(1, len(stages.certainties)))))
    each = [_levels(certainty, most) for certainty in stages.certainties]
    points = [stages.point(thresholds) for thresholds in itertools.product(*each)]
    return sorted(points, key=lambda point: (point.cost, point.thresholds))


def _levels(certainty: np.ndarray, most: int) -> list[float]:
    """0, what lies between each two of the values, evenly thinned by rank, and above 1."""
    values = np.unique(certainty)
    between = (values[1:] + values[:-1]) / 2
    if len(between) > most - 2:
        ranks = np.searchsorted(np.sort(certainty), between) / len(certainty)
        wanted = np.linspace(0, 1, most)[1:-1]
        between = np.unique(between[np.clip(np.searchsorted(ranks, wanted), 0, len(between) - 1)])
    return [0.0, *between.tolist(), NEVER]


NEVER = 1.1
"""A threshold that no certainty reaches."""


def within(points: Sequence[Setting], budget: float, criterion: str) -> Setting | None:
    """The best on these examples of those that cost no more; of equals the cheapest. None where all cost more."""
    affordable = [point for point in points if point.cost <= budget * (1 + 1e-9)]
    return max(affordable, key=lambda point: (*point.score(criterion), -point.cost), default=None)


def at_least(points: Sequence[Point], score: float, criterion: str) -> Point | None:
    """The cheapest whose score is no lower; of equals the best. None where there is none."""
    good = [point for point in points if point.score(criterion)[0] >= score]
    return min(good, key=lambda point: (point.cost, *(-value for value in point.score(criterion))), default=None)


def dial(points: Sequence[Point], criterion: str, most: int = 25) -> list[Point]:
    """What a curve is drawn of, at most so many points, evenly by cost.

    With one threshold it is every choice; with several only those that no cheaper one outscores here.
    """
    kept: list[Point] = []
    for point in points:
        if kept and point.cost - kept[-1].cost < 1e-12:
            continue
        if kept and len(point.thresholds) > 1 and point.score(criterion) <= kept[-1].score(criterion):
            continue
        kept.append(point)
    wanted = np.linspace(kept[0].cost, kept[-1].cost, most)
    costs = np.array([point.cost for point in kept])
    return [kept[position] for position in sorted({int(np.abs(costs - at).argmin()) for at in wanted})]
