"""Fitting a stacked model (``rules.Stacked``) on held-out predictions, its penalty chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from harness.systems.rules import Stacked, floor_zeros

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
FOLDS = 5
EXACT = {"maxiter": 500, "ftol": 1e-12, "gtol": 1e-7}
NEAR = {"maxiter": 500, "ftol": 1e-9, "gtol": 1e-5}
"""Of the fits that only say which penalty is best: their losses on a fold are right to about three digits."""
CURVATURE = 0.05
"""About that of the loss by a score, the mean of p (1 - p): it changes how many steps are taken, and no result."""
RIDGE = 1e-4
"""Holds the scales of members that say the same at equal shares: far below the noise of a held-out split."""


def fit_stacking(
    stacked: Tensor, labels: Tensor, generator: torch.Generator, penalties: Sequence[float] = PENALTIES
) -> tuple[Stacked, float, list[float]]:
    """The model of least penalised mean loss on predictions [M, N, C] and labels [N].

    The penalty is ``p/2 (|weights|^2 + |bias|^2)``; the members' scales go free, so however large it is, what is left
    is a log-linear mixture: of one member that is itself under a temperature.

    Returns:
        The model, the penalty with the least mean loss over ``FOLDS`` folds (the larger of equals), and the loss of
        each penalty there.
    """
    said = floor_zeros(stacked.double()).numpy()
    truth = np.eye(said.shape[-1])[labels.numpy()]
    order = torch.randperm(len(labels), generator=generator).numpy()
    folds = min(FOLDS, len(labels))
    totals = np.zeros(len(penalties))
    for fold in range(folds) if folds > 1 else ():
        held, kept = order[fold::folds], np.setdiff1d(order, order[fold::folds])
        unseen, fitted = _Loss(said[:, held], truth[held], 0.0), _start(said)
        for position in np.argsort(penalties)[::-1]:  # each from where the larger one before it ended: it is near
            fitted = _fit(said[:, kept], truth[kept], penalties[position], fitted, NEAR)
            totals[position] += len(held) * unseen.mean(fitted)
    losses = (totals / len(labels)).tolist()
    chosen = max(range(len(penalties)), key=lambda k: (-losses[k], penalties[k]))
    model = _unpacked(_fit(said, truth, penalties[chosen]), len(said), said.shape[-1])
    return Stacked(*(torch.from_numpy(part.copy()) for part in model)), penalties[chosen], losses


def _unpacked(values: np.ndarray, members: int, classes: int) -> Iterator[np.ndarray]:
    """Scales [M], weights [M, C, C] and bias [C] of all parameters in a row."""
    yield values[:members]
    yield values[members:-classes].reshape(members, classes, classes)
    yield values[-classes:]


def _start(said: np.ndarray) -> np.ndarray:
    """All parameters in a row, of the plain log-linear mixture."""
    members, _, classes = said.shape
    start = np.zeros(members + members * classes**2 + classes)
    start[:members] = 1 / members
    return start


def _fit(
    said: np.ndarray,
    truth: np.ndarray,
    penalty: float,
    start: np.ndarray | None = None,
    options: Mapping[str, float] = EXACT,
) -> np.ndarray:
    """The parameters of least penalised loss, found in coordinates in which it is about as steep in all directions.

    Members say nearly the same, so the features are nearly dependent: in their principal axes, each in units of its
    curvature, a tenth of the steps is enough.
    """
    loss, members, classes = _Loss(said, truth, penalty), len(said), truth.shape[1]
    spread, axes = np.linalg.eigh(loss.features.T @ loss.features / len(truth))
    units = axes / np.sqrt(CURVATURE * spread.clip(min=0) + penalty)  # [M C, M C]
    back = np.linalg.inv(units)

    def moved(values: np.ndarray, by: np.ndarray) -> np.ndarray:
        weights = by @ values[members:-classes].reshape(members * classes, classes)
        return np.concatenate([values[:members], weights.ravel(), values[-classes:]])

    def of_units(values: np.ndarray) -> tuple[float, np.ndarray]:
        found, gradient = loss(moved(values, units))
        return found, moved(gradient, units.T)

    begin = moved(_start(said) if start is None else start, back)
    found = minimize(of_units, begin, jac=True, method="L-BFGS-B", options=dict(options))
    return moved(np.asarray(found.x), units)


class _Loss:
    """The penalised mean loss of all parameters in a row, and its derivatives."""

    def __init__(self, said: np.ndarray, truth: np.ndarray, penalty: float) -> None:
        self.said, self.truth, self.penalty = said, truth, penalty
        members, rows, classes = said.shape
        self.features = np.moveaxis(said, 0, 1).reshape(rows, members * classes)  # [N, M C]

    def _log_probs(self, values: np.ndarray) -> np.ndarray:
        scales, weights, bias = _unpacked(values, len(self.said), self.truth.shape[1])
        scores = np.einsum("m,mnc->nc", scales, self.said)
        scores += self.features @ weights.reshape(-1, self.truth.shape[1]) + bias
        scores -= scores.max(axis=1, keepdims=True)
        return np.asarray(scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)))

    def mean(self, values: np.ndarray) -> float:
        """The mean loss without penalties, in nats."""
        return float(-(self._log_probs(values) * self.truth).sum(axis=1).mean())

    def __call__(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        members = len(self.said)
        log_probs = self._log_probs(values)
        wrong = (np.exp(log_probs) - self.truth) / len(self.truth)
        pulls = np.concatenate([RIDGE * (values[:members] - 1 / members), self.penalty * values[members:]])
        loss = -float((log_probs * self.truth).sum()) / len(self.truth)
        loss += RIDGE / 2 * float(np.square(values[:members] - 1 / members).sum())
        loss += self.penalty / 2 * float(np.square(values[members:]).sum())
        gradient = [np.einsum("mnc,nc->m", self.said, wrong), (self.features.T @ wrong).ravel(), wrong.sum(axis=0)]
        return loss, np.concatenate(gradient) + pulls
