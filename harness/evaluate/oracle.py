"""The oracle over several models: of each example the cheapest one that is right, and what of it is not luck."""

from __future__ import annotations

import numpy as np


def oracle(right: np.ndarray, costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The score [N] and the cost [N] of calling the cheapest model that is right, or the cheapest where none is.

    No choice of one model for each example scores higher.

    Args:
        right: [M, N] whether each model is right on each example.
        costs: [M, N], or [M] where an example costs the same as every other.

    Raises:
        ValueError: for no models, or shapes or values that are none of these.
    """
    right, costs = _checked(right, costs)
    chosen = _chosen(right, costs)
    return np.asarray(right.any(axis=0), np.float64), np.asarray((chosen * costs).sum(axis=0))


def luck_corrected(right: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """What is left of the oracle's score if it knows how many models are right on an example, but not which of them.

    The labels of which model is right are permuted among the examples on which equally many are, so that none keeps
    its own: the oracle chooses by another example's labels, and is right where the model so chosen is. Among M models
    that differ by nothing but luck it scores as any one of them, whatever the oracle scores. It is no bound on a
    router, which may learn which model is right from the example itself.

    Returns:
        [N] values whose mean is the expected score over all such permutations, and of which each is what its example
        adds to it (for intervals; the expectation is a mean over pairs of examples, and these its projections). On an
        example that is alone with its number, every model is as likely the one that is chosen.

    Args:
        right: as in ``oracle``.
        costs: as in ``oracle``.

    Raises:
        ValueError: as ``oracle``.
    """
    right, costs = _checked(right, costs)
    chosen, count = _chosen(right, costs), right.sum(axis=0)
    values = np.zeros(right.shape[1])
    for number in range(1, len(right) + 1):
        group = np.flatnonzero(count == number)
        if len(group) < 2:
            values[group] = number / len(right)
            continue
        ours, theirs = right[:, group].astype(np.float64), chosen[:, group]
        is_right, is_chosen, others = ours.sum(axis=1), theirs.sum(axis=1), len(group) - 1
        mean = (is_right @ is_chosen - len(group)) / (len(group) * others)  # without each one's own: it is right there
        values[group] = (is_chosen @ ours + is_right @ theirs - 2) / others - mean
    return values


def _chosen(right: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Of each example how the oracle chooses [M, N], in equal parts among models that cost the same."""
    among = np.where(right, costs, np.inf)
    among = np.where(right.any(axis=0), among, costs)
    cheapest = among == among.min(axis=0)
    return np.asarray(cheapest / cheapest.sum(axis=0))


def _checked(right: np.ndarray, costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    right, costs = np.asarray(right), np.asarray(costs, np.float64)
    if right.ndim != 2 or not len(right) or not np.isin(right, (0, 1)).all():
        raise ValueError(f"right answers {right.shape} are no zeros and ones [models, examples]")
    costs = np.broadcast_to(costs[:, None] if costs.ndim == 1 else costs, right.shape)
    if not np.isfinite(costs).all():
        raise ValueError("costs must be finite")
    return right.astype(bool), costs
