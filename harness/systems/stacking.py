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
WORSE = 2
"""After so many penalties in a row that are worse than the best, smaller ones are not tried."""
RIDGE = 1e-4
"""Holds the scales of members that say the same at equal shares: far below the noise of a held-out split."""


def fit_stacking(
    stacked: Tensor, labels: Tensor, generator: torch.Generator, penalties: Sequence[float] = PENALTIES
) -> tuple[Stacked, float, dict[float, float]]:
    """The model of least penalised mean loss on predictions [M, N, C] and labels [N].

    The penalty is ``p/2 (|weights|^2 + |bias|^2)``; the members' scales go free, so however large it is, what is left
    is a log-linear mixture: of one member that is itself under a temperature.

    Penalties are tried from the largest on, until two in a row are worse than the best so far.

    Returns:
        The model, the penalty with the least mean loss over ``FOLDS`` folds (the larger of equals), and the loss of
        each penalty that was tried.
    """
    said = floor_zeros(stacked.double()).numpy()
    truth = np.eye(said.shape[-1])[labels.numpy()]
    order = torch.randperm(len(labels), generator=generator).numpy()
    folds = min(FOLDS, len(labels))
    parts = [(order[fold::folds], np.setdiff1d(order, order[fold::folds])) for fold in range(folds) if folds > 1]
    fitted = [_start(said)] * len(parts)  # each fit starts where that of the penalty before ended
    losses: dict[float, float] = {}
    for penalty in sorted(penalties, reverse=True):
        fitted = [
            _fit(said[:, kept], truth[kept], penalty, start, NEAR)
            for start, (_, kept) in zip(fitted, parts, strict=True)
        ]
        total = sum(
            len(held) * _Loss(said[:, held], truth[held], 0.0).mean(each)
            for each, (held, _) in zip(fitted, parts, strict=True)
        )
        losses[penalty] = float(total / len(labels))
        if len(losses) > WORSE and min(list(losses.values())[-WORSE:]) > min(losses.values()):
            break
    chosen = min(losses, key=lambda penalty: (losses[penalty], -penalty))
    model = _unpacked(_fit(said, truth, chosen), len(said), said.shape[-1])
    return Stacked(*(torch.from_numpy(part.copy()) for part in model)), chosen, losses


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

    Members say nearly the same, so the features are nearly dependent: in the principal axes of the curvature that the
    loss has at the plain mixture, each in units of that, far fewer steps are enough.
    """
    loss, plain = _Loss(said, truth, penalty), _start(said)
    members, rows, classes = said.shape
    shares = np.exp(loss.log_probs(plain))  # [N, C]
    centred = np.sqrt(shares) * (said - (shares * said).sum(axis=2, keepdims=True))
    flat = centred.reshape(members, rows * classes)
    unsure = (shares * (1 - shares)).mean(axis=1, keepdims=True)  # [N, 1]
    units = (
        _units(flat @ flat.T / rows, RIDGE),  # of the scales
        _units(loss.features.T @ (unsure * loss.features) / rows, penalty),  # of the weights
        np.eye(classes) / np.sqrt(unsure.mean() + penalty),  # of the bias
    )

    def moved(values: np.ndarray, by: Sequence[np.ndarray]) -> np.ndarray:
        parts = values[:members], values[members:-classes].reshape(members * classes, classes), values[-classes:]
        return np.concatenate([(each @ part).ravel() for each, part in zip(by, parts, strict=True)])

    def of_units(values: np.ndarray) -> tuple[float, np.ndarray]:
        found, gradient = loss(moved(values, units))
        return found, moved(gradient, [each.T for each in units])

    begin = moved(plain if start is None else start, [np.linalg.inv(each) for each in units])
    found = minimize(of_units, begin, jac=True, method="L-BFGS-B", options=dict(options))
    return moved(np.asarray(found.x), units)


def _units(curvature: np.ndarray, penalty: float) -> np.ndarray:
    """Principal axes of a curvature [D, D], as columns, each in units of what it is with the penalty."""
    spread, axes = np.linalg.eigh(curvature)
    return np.asarray(axes / np.sqrt(spread.clip(min=0) + penalty))


class _Loss:
    """The penalised mean loss of all parameters in a row, and its derivatives."""

    def __init__(self, said: np.ndarray, truth: np.ndarray, penalty: float) -> None:
        self.said, self.truth, self.penalty = said, truth, penalty
        members, rows, classes = said.shape
        self.features = np.moveaxis(said, 0, 1).reshape(rows, members * classes)  # [N, M C]

    def log_probs(self, values: np.ndarray) -> np.ndarray:
        """[N, C] of these parameters."""
        scales, weights, bias = _unpacked(values, len(self.said), self.truth.shape[1])
        scores = np.einsum("m,mnc->nc", scales, self.said)
        scores += self.features @ weights.reshape(-1, self.truth.shape[1]) + bias
        scores -= scores.max(axis=1, keepdims=True)
        return np.asarray(scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)))

    def mean(self, values: np.ndarray) -> float:
        """The mean loss without penalties, in nats."""
        return float(-(self.log_probs(values) * self.truth).sum(axis=1).mean())

    def __call__(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        members = len(self.said)
        log_probs = self.log_probs(values)
        wrong = (np.exp(log_probs) - self.truth) / len(self.truth)
        pulls = np.concatenate([RIDGE * (values[:members] - 1 / members), self.penalty * values[members:]])
        loss = -float((log_probs * self.truth).sum()) / len(self.truth)
        loss += RIDGE / 2 * float(np.square(values[:members] - 1 / members).sum())
        loss += self.penalty / 2 * float(np.square(values[members:]).sum())
        gradient = [np.einsum("mnc,nc->m", self.said, wrong), (self.features.T @ wrong).ravel(), wrong.sum(axis=0)]
        return loss, np.concatenate(gradient) + pulls
