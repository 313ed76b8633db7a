"""Merged task vectors: each member's difference from the base is made sparse, and all are merged into one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial, reduce
from typing import Any

import torch
from torch import Tensor

from harness.merging.arithmetic import Weights, floating_names, streamed
from harness.merging.layers import layer_of
from harness.merging.sparsify import trim, trimmer
from harness.merging.spilled import Results
from harness.merging.ties import Dialect, merge_part, sign_conflicts

Sparsify = Callable[[Tensor, int, str], Tensor]
"""Makes one tensor of a task vector sparse: of the member at this position, under its name."""


@dataclass(frozen=True)
class TaskVectors:
    """What each model changed in the base, in float32 or wider: read tensor by tensor, as often as it is asked for."""

    base: Weights
    models: Sequence[Weights]

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The entries of each floating-point tensor, tied ones once."""
        return {name: self.base[name].numel() for name in floating_names(self.base)}

    def of(self, position: int) -> Iterator[tuple[str, Tensor]]:
        """The tensors of one model's task vector, all in the widest type among them."""
        widest = reduce(torch.promote_types, (self.base[name].dtype for name in self.sizes), torch.float32)
        model = self.models[position]
        return ((name, model[name].to(widest) - self.base[name].to(widest)) for name in self.sizes)


@dataclass(frozen=True)
class MergedTaskVector:
    """What is added to the base, and how much the members disagreed about it."""

    tensors: Mapping[str, Tensor]
    """By tensor name, tied tensors once, in float32 (or wider, as the weights are)."""
    sign_conflict: dict[str, Any]
    """The share of all entries in which sparse task vectors disagree in sign: ``model``, and ``layers`` by layer."""


def trimming(vectors: TaskVectors, density: float, dialect: Dialect) -> Sparsify:
    """Trims each tensor, or each model's task vector as a whole, as the dialect has it."""
    if dialect.scope == "tensor":
        return lambda tensor, member, name: trim(tensor, density, dialect.keep)
    each = range(len(vectors.models))
    trimmers = [trimmer(vectors.sizes, partial(vectors.of, member), density, dialect.keep) for member in each]
    return lambda tensor, member, name: trimmers[member](name, tensor)


def merge_task_vectors(
    vectors: TaskVectors, sparsify: Sparsify, dialect: Dialect, weights: Sequence[float] | None = None
) -> MergedTaskVector:
    """Merge what each model changed in the base: tensor by tensor, so that one tensor of each model is held.

    Where sums of zero take the sign that most entries of the model elect, which is known at the end, they are taken for
    positive at first; tensors that have such sums are merged again if that was wrong.

    Raises:
        NotApplicable: weights that are not one for each model, or that the dialect has no meaning for.
    """
    dialect.check_weights(weights, len(vectors.models))
    merge = _TensorByTensor(vectors, sparsify, dialect, weights)
    tensors = Results()
    for name in vectors.sizes:
        tensors[name] = merge.tensor(name, 1)
    if (sign := dialect.sign_of_zero(merge.elected)) < 0:
        for name in merge.undecided:
            tensors[name] = merge.tensor(name, sign)
    return MergedTaskVector(tensors.done(), _shares(merge.conflicts, vectors.sizes))


@dataclass
class _TensorByTensor:
    vectors: TaskVectors
    sparsify: Sparsify
    dialect: Dialect
    weights: Sequence[float] | None
    elected: int = 0
    """How many entries of the model have elected a positive sign, less how many a negative one."""
    undecided: list[str] = field(default_factory=list)
    """The tensors in which some entries have elected none."""
    conflicts: Counter[str] = field(default_factory=Counter)
    room: Tensor = field(default_factory=lambda: torch.empty(0))
    """Reused from tensor to tensor: fresh pages would cost more than the arithmetic."""

    def tensor(self, name: str, sign_of_zero: int) -> Tensor:
        """One tensor of the merged task vector."""
        start = self.vectors.base[name]
        start = start.to(torch.promote_types(start.dtype, torch.float32))
        shape = len(self.vectors.models), start.numel()
        if self.room.numel() < shape[0] * shape[1] or self.room.dtype != start.dtype:
            self.room = torch.empty(shape[0] * shape[1], dtype=start.dtype, device=start.device)
        sparse = self.room[: shape[0] * shape[1]].view(shape)
        for k, model in enumerate(self.vectors.models):
            change = sparse[k].view(start.shape)
            torch.sub(model[name].to(start.dtype), start, out=change)
            if start.numel():
                change.copy_(self.sparsify(change, k, name))
        merged, election = merge_part(sparse, self.dialect, self.weights, sign_of_zero)
        if name not in self.conflicts:
            self.conflicts[name] = int(sign_conflicts(sparse).sum())
            self.elected += election.sum
            if election.undecided:
                self.undecided.append(name)
        return merged.view(start.shape)


def _shares(conflicts: Counter[str], of_tensors: Mapping[str, int]) -> dict[str, Any]:
    counted: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for name, size in of_tensors.items():
        counted[layer_of(name)] += conflicts[name]
        sizes[layer_of(name)] += size
    return {
        "model": counted.total() / max(1, sizes.total()),
        "layers": {layer: counted[layer] / max(1, size) for layer, size in sizes.items()},
    }


def apply_task_vector(base: Weights, vector: Mapping[str, Tensor], scale: float) -> Weights:
    """``theta_0 + scale * tau``, rounded once; tensors without a task vector (counters) are the base's."""
    names = iter(vector)

    def add(tensors: list[Tensor]) -> Tensor:
        return tensors[0] + scale * vector[next(names)]

    return streamed([base], add)
