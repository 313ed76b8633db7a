"""Merged task vectors: each member's difference from the base is made sparse, and all are merged into one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from harness.merging.arithmetic import Weights, floating_names, streamed
from harness.merging.layers import layer_of
from harness.merging.ties import Dialect, merge_vectors, sign_conflicts

Sparsify = Callable[[Tensor, int, str], Tensor]
"""Makes a task vector sparse: one tensor of the member at this position and its name, or, where the dialect's scope is
the model, the flat vector [d] of all of them and no name."""


@dataclass(frozen=True)
class MergedTaskVector:
    """What is added to the base, and how much the members disagreed about it."""

    tensors: dict[str, Tensor]
    """By tensor name, tied tensors once, in float32 (or wider, as the weights are)."""
    sign_conflict: dict[str, Any]
    """The share of all entries in which sparse task vectors disagree in sign: ``model``, and ``layers`` by layer."""


def merge_task_vectors(
    base: Weights,
    models: Sequence[Weights],
    sparsify: Sparsify,
    dialect: Dialect,
    weights: Sequence[float] | None = None,
) -> MergedTaskVector:
    """Merge what each model changed in the base.

    Tensor by tensor where the dialect allows it, so that one tensor of each model is held; otherwise all task vectors
    are, in float32.

    Raises:
        NotApplicable: weights that are not one for each model, or that the dialect has no meaning for.
    """
    dialect.check_weights(weights, len(models))
    names = list(floating_names(base))
    tensors: dict[str, Tensor] = {}
    conflicts: Counter[str] = Counter()
    blocks = [names] if dialect.at_once and names else [[name] for name in names]
    room = torch.empty(0)  # reused from tensor to tensor: fresh pages would cost more than the arithmetic
    for block in blocks:
        start = {name: _wide(base[name]) for name in block}
        sizes = [tensor.numel() for tensor in start.values()]
        widest = reduce(torch.promote_types, (tensor.dtype for tensor in start.values()))
        shape = len(models), sum(sizes)
        if room.numel() < shape[0] * shape[1] or room.dtype != widest:
            room = torch.empty(shape[0] * shape[1], dtype=widest, device=start[block[0]].device)
        vectors = room[: shape[0] * shape[1]].view(shape)
        for k, model in enumerate(models):
            _fill(vectors[k], start, model, k, sparsify, dialect)
        merged = merge_vectors(vectors, dialect, weights).split(sizes)
        disagree = sign_conflicts(vectors).split(sizes)
        for (name, tensor), piece, conflict in zip(start.items(), merged, disagree, strict=True):
            tensors[name] = piece.view(tensor.shape)
            conflicts[name] = int(conflict.sum())
    return MergedTaskVector(tensors, _shares(conflicts, tensors))


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _fill(
    flat: Tensor, start: Mapping[str, Tensor], model: Weights, position: int, sparsify: Sparsify, dialect: Dialect
) -> None:
    """Write one model's sparse task vector over the tensors of ``start`` to a flat vector [d]."""
    pieces = flat.split([tensor.numel() for tensor in start.values()])
    for (name, tensor), piece in zip(start.items(), pieces, strict=True):
        change = piece.view(tensor.shape)
        torch.sub(_wide(model[name]), tensor, out=change)
        if dialect.scope == "tensor" and tensor.numel():
            change.copy_(sparsify(change, position, name))
    if dialect.scope == "model" and len(flat):
        flat.copy_(sparsify(flat, position, ""))


def _shares(conflicts: Counter[str], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    counted: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for name, tensor in tensors.items():
        counted[layer_of(name)] += conflicts[name]
        sizes[layer_of(name)] += tensor.numel()
    return {
        "model": counted.total() / max(1, sizes.total()),
        "layers": {layer: counted[layer] / max(1, size) for layer, size in sizes.items()},
    }


def apply_task_vector(base: Weights, vector: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """``theta_0 + scale * tau``, rounded once; tensors without a task vector (counters) are the base's."""
    names = iter(vector)

    def add(tensors: list[Tensor]) -> Tensor:
        return tensors[0] + scale * vector[next(names)]

    return streamed([base], add)
