"""TIES merging as in its paper (Yadav et al. 2023, arXiv:2306.01708): trim, elect a sign, mean of those that agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harness.merging.arithmetic import Weights, floating_names, streamed


def ties_task_vector(base: Weights, models: Sequence[Weights], density: float) -> dict[str, Tensor]:
    """The merged task vector in float32, by tensor name (tied tensors once).

    Args:
        base: the weights all models were fine-tuned from.
        models: the fine-tuned weights.
        density: the share of each task vector that is kept, by magnitude, over the whole model. Exactly
            ``max(1, int(density * size))`` entries stay, the lowest index first among equals. (The authors' code
            keeps all ``>= kthvalue``, one more, and fails at 100 %.)
    """
    names = list(floating_names(base))
    shapes = [base[name].shape for name in names]
    start = _flatten(base, names)
    vectors = torch.empty(len(models), len(start))
    for vector, model in zip(vectors, models, strict=True):  # a large model is held once for each member, not twice
        vector.copy_(trim(_flatten(model, names) - start, density))
    merged = disjoint_mean(vectors, elect_signs(vectors))
    pieces = merged.split([shape.numel() for shape in shapes])
    return {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}


def _flatten(model: Weights, names: Sequence[str]) -> Tensor:
    return torch.cat([model[name].to(torch.float32).flatten() for name in names])


def trim(vector: Tensor, density: float) -> Tensor:
    """Zero all but the largest magnitudes of a flat vector [d]; the sign and value of the rest are untouched."""
    if density >= 1:
        return vector
    keep = max(1, int(density * len(vector)))
    magnitude = vector.abs()
    smallest_kept = magnitude.kthvalue(len(vector) - keep + 1).values
    kept = magnitude > smallest_kept
    tied = (magnitude == smallest_kept).nonzero().flatten()
    kept[tied[: keep - int(kept.sum())]] = True
    return torch.where(kept, vector, 0.0)


def elect_signs(vectors: Tensor) -> Tensor:
    """The sign [d] of the sum over the task vectors [M, d]; where it is 0, the sign most entries of the model have.

    Positive where no sign has the majority. Summed in float64, in which entries that cancel but for rounding have the
    same sum, and so the same sign, in any order of the members.
    """
    total = torch.zeros(vectors.shape[1], dtype=torch.float64, device=vectors.device)
    for vector in vectors:
        total += vector
    signs = total.sign().to(vectors.dtype)
    majority = signs.sum().sign()
    return torch.where(signs == 0, majority if majority != 0 else 1.0, signs)


def disjoint_mean(vectors: Tensor, signs: Tensor) -> Tensor:
    """The mean [d] of the non-zero entries of [M, d] whose sign is the elected one; 0 where there is none."""
    total, count = torch.zeros_like(signs), torch.zeros_like(signs)
    for vector in vectors:
        agrees = vector.sign() == signs
        total += torch.where(agrees, vector, 0.0)
        count += agrees
    return total / count.clamp(min=1)


def apply_task_vector(base: Weights, vector: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """``theta_0 + scale * tau``; tensors without a task vector (counters) are the base's."""
    names = iter(vector)

    def add(tensors: list[Tensor]) -> Tensor:
        return tensors[0] + scale * vector[next(names)]

    return streamed([base], add)
