"""A multinomial logistic model on log-probabilities: a rule that is fitted on held-out predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.systems.rules import Rule

LEAST = -30.0
"""Log-probabilities below it are taken as it: a feature has to be finite, and this is e^-30."""


@dataclass(frozen=True)
class Logistic(Rule):
    """``log softmax(W x + b)`` of the members' log-probabilities x, one after the other, [M * C].

    ``weights`` are [C, M * C] and ``bias`` is [C].
    """

    weights: Tensor
    bias: Tensor

    def __call__(self, stacked: Tensor) -> Tensor:
        features = features_of(stacked)
        scores = features @ self.weights.to(features).T + self.bias.to(features)
        return torch.log_softmax(scores, dim=-1)


def features_of(stacked: Tensor) -> Tensor:
    """Log-probabilities [M, N, C] as features [N, M * C]; NaN stays NaN."""
    return torch.cat(list(stacked.clamp(min=LEAST)), dim=-1)


def fit_logistic(stacked: Tensor, labels: Tensor) -> Logistic:
    """The multinomial logistic model of scikit-learn, with its usual L2 penalty (C = 1).

    Args:
        stacked: [M, N, C].
        labels: [N]; a class that none of them has gets the probability e^-30 of the rarest known score or less.

    Raises:
        ValueError: where all labels are one, or a log-probability is NaN.
    """
    from sklearn.linear_model import LogisticRegression

    classes = stacked.shape[-1]
    features = features_of(stacked.double().cpu()).numpy()
    fitted = LogisticRegression(max_iter=2000, tol=1e-8).fit(features, labels.cpu().numpy())
    rows, bias = np.asarray(fitted.coef_), np.asarray(fitted.intercept_)
    if len(rows) == 1:  # of two classes scikit-learn has the second one's row only
        rows, bias = np.stack([np.zeros_like(rows[0]), rows[0]]), np.array([0.0, bias[0]])
    weights, offsets = np.zeros((classes, features.shape[1])), np.full(classes, bias.min() + LEAST)
    weights[fitted.classes_], offsets[fitted.classes_] = rows, bias
    return Logistic(torch.from_numpy(weights), torch.from_numpy(offsets))
