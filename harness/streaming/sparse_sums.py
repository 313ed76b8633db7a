"""The rules that make task vectors sparse and add them to the base: task arithmetic, TIES, DARE, DELLA, Breadcrumbs.

Source: mergekit 0.1.5, ``sparsify`` and ``generalized_task_arithmetic``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from harness.merging.sparsify import drop, magprune_probabilities, restore_l1, trim, trim_outliers
from harness.merging.ties import MERGEKIT, merge_vectors
from harness.streaming.draws import key, uniform
from harness.streaming.plan import Step

ELECTING = ("ties", "dare_ties", "della", "breadcrumbs_ties")
"""The rules with an election of signs."""

RESCALE_FLOOR = 1e-7
"""A task vector whose sum of magnitudes is less than this, before or after it is made sparse, is not rescaled."""

DIVISOR_FLOOR = 1e-8
"""A sum of weights whose magnitude is less than this divides nothing, where there is no election."""


def combine_task_vectors(step: Step, tensors: Sequence[Tensor]) -> Tensor:
    """``base + lambda * (weighted sum of sparse task vectors [/ the weights that count])``.

    Memory: where signs are elected, the task vectors; otherwise one of them.
    """
    assert step.base is not None
    base = tensors[step.base]
    tuned = [i for i in range(len(tensors)) if i != step.base]
    if not tuned:
        return base
    weights = [float(step.each["weight"][i]) for i in tuned]
    if step.rule in ELECTING:
        total = _elected(step, [(i, tensors[i]) for i in tuned], base, weights)
    else:
        total = torch.zeros_like(base)
        for i, weight in zip(tuned, weights, strict=True):
            total.add_(sparse_task_vector(step, i, tensors[i], base).mul_(weight))
        divisor = sum_of_weights(weights, base)
        if step.shared["normalize"] and abs(divisor) >= DIVISOR_FLOOR:
            total.div_(divisor)
    if step.shared["lambda"] != 1:
        total.mul_(step.shared["lambda"])
    return total.add_(base)


def sum_of_weights(weights: Sequence[float], like: Tensor) -> float:
    """As mergekit has it, of weights that are rounded to the tensors' type."""
    return float(like.new_tensor(weights).sum())


def _elected(step: Step, tuned: Sequence[tuple[int, Tensor]], base: Tensor, weights: Sequence[float]) -> Tensor:
    vectors = base.new_empty((len(tuned), base.numel()))
    for row, (i, tensor) in zip(vectors, tuned, strict=True):
        row.copy_(sparse_task_vector(step, i, tensor, base).flatten())
    dialect = replace(MERGEKIT, divide="weights" if step.shared["normalize"] else "none")
    return merge_vectors(vectors, dialect, weights, overwrite=True).view(base.shape)


def sparse_task_vector(step: Step, source: int, tensor: Tensor, base: Tensor) -> Tensor:
    """What the source at this place changes in the base, made sparse as the step's rule has it; a tensor of its own.

    A random rule keeps an entry whose draw is less than its probability in float32.
    """
    vector = tensor - base
    density = step.each["density"][source]
    if step.rule == "task_arithmetic" or density >= 1:
        return vector
    if step.rule == "ties":
        sparse = trim(vector, density)
    elif step.rule.startswith("breadcrumbs"):
        sparse = trim_outliers(vector, density, step.each["gamma"][source])
    else:
        likely = density
        if step.rule.startswith("della") and density > 0:
            epsilon = step.each["epsilon"][source]
            likely = magprune_probabilities(vector, density, epsilon, rows="second_axis")
        numbers = uniform(key(step.seed, step.draws[source], step.name), 0, vector.numel())
        sparse = drop(vector, likely, torch.from_numpy(numbers).view(vector.shape), "none")
    return restore_l1(sparse, vector, RESCALE_FLOOR) if step.shared["rescale"] else sparse
