"""Fitting a router on held-out, and the price of cost at which it does best there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from harness.evaluate.cascading import in_order
from harness.evaluate.heldout import Score
from harness.systems.fitting import accuracy, nll
from harness.systems.routers import Logistic, Neighbours, Router, standardised

Kind = Literal["logistic", "neighbours"]
FOLDS = 5
NEIGHBOURS = 32
PRICES = (0.0, *np.geomspace(1e-3, 10, 33).tolist())
"""What is tried: expected quality that is given up for what all members take together. Above 1 the cheapest wins."""


def fit_router(evidence: Tensor, right: Tensor, kind: Kind) -> Router:
    """A router from evidence [N, D] and which models are right [N, M]."""
    evidence, right = evidence.double(), right.double()
    centre, scale = evidence.mean(dim=0), evidence.std(dim=0, correction=0).clamp(min=1e-6)
    rows = standardised(evidence, centre, scale)
    if kind == "neighbours":
        return Neighbours(centre, scale, rows, right, torch.tensor(min(NEIGHBOURS, len(rows))))
    columns = [_logistic(rows.numpy(), column.numpy()) for column in right.T]
    weights, bias = (np.stack(each) for each in zip(*columns, strict=True))
    return Logistic(centre, scale, torch.from_numpy(weights.T.copy()), torch.from_numpy(bias))


def _logistic(rows: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights [D] and bias of the probability of being right; of one that is always or never right, its share alone."""
    from sklearn.linear_model import LogisticRegression

    if right.min() == right.max():
        share = (right.sum() + 1) / (len(right) + 2)  # Laplace's, which is finite on the scale of the logistic
        return np.zeros(rows.shape[1]), np.array(math.log(share / (1 - share)))
    fitted = LogisticRegression(C=0.1, max_iter=1000).fit(rows, right)
    return fitted.coef_[0], fitted.intercept_[0]


def out_of_fold(evidence: Tensor, right: Tensor, kind: Kind, generator: torch.Generator) -> Tensor:
    """What routers that have not seen an example expect of each model there, [N, M]."""
    order = torch.randperm(len(right), generator=generator)
    folds = min(FOLDS, len(right))
    found = torch.zeros(right.shape, dtype=torch.float64)
    for fold in range(folds) if folds > 1 else ():
        held = order[fold::folds]
        kept = torch.ones(len(right), dtype=torch.bool)
        kept[held] = False
        found[held] = fit_router(evidence[kept], right[kept], kind)(evidence[held])
    return found


@dataclass(frozen=True)
class Priced:
    """What a price costs and scores on held-out, by routers that have not seen the example."""

    price: float
    cost: float
    """Mean over the examples, as a share of what all members take together."""
    accuracy: float
    likelihood: float

    def score(self, criterion: str) -> Score:
        """As ``heldout.score`` has it."""
        return in_order(self.accuracy, self.likelihood, criterion)

    def told(self) -> dict[str, Any]:
        """As JSON values."""
        return {"price": self.price, "cost": self.cost, "accuracy": self.accuracy, "nll": -self.likelihood}


def priced(price: float, log_probs: Tensor, calls: Tensor, labels: Tensor, costs: Sequence[float]) -> Priced:
    """A price's point, from what the system says [N, C] and calls [N, M], and each member's share of all cost."""
    shares = calls.double() @ torch.tensor(costs, dtype=torch.float64)
    return Priced(price, float(shares.mean()), accuracy(log_probs, labels), -nll(log_probs, labels))


def turned(points: Sequence[Priced]) -> list[Priced]:
    """What a curve is drawn of: the points from the cheapest to the dearest, one for each cost."""
    of_cost = {round(point.cost, 9): point for point in sorted(points, key=lambda point: -point.price)}
    return [of_cost[cost] for cost in sorted(of_cost)]
