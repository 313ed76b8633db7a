"""Members stored in half precision beside members that are not: merged in the wider precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from harness.models.adapters import AdapterWeights
from harness.models.lookup import PredictedWeights
from harness.models.weights import ModelWeights, load_module
from harness.types import Member, Pool


def with_same_precision(pool: Pool, used: Sequence[int]) -> Pool:
    """The pool whose models all have the widest precision of its base and of the members at the positions ``used``.

    What they hold stays the same. A merge is rounded to the precision of its first model, and an adapter merged into a
    base in bfloat16 is float32: what it changes would be rounded away, as small as it is beside the base's weights.
    """
    everyone = (*((pool.base,) if pool.base else ()), *(pool.members[position] for position in used))
    stored = {_precision(member) for member in everyone if isinstance(member.weights, ModelWeights)}
    if len(stored - {None}) < 2:
        return pool
    members, base = tuple(map(_widened, pool.members)), pool.base
    return replace(pool, members=members, base=_widened(base) if base else None)


def _precision(member: Member) -> torch.dtype | None:
    """That of its tensors; None for a member that has none, being known by its predictions."""
    if isinstance(member.weights, PredictedWeights):
        return None
    if isinstance(member.weights, AdapterWeights):
        return torch.float32  # which one tensor would tell as well, at the cost of merging it
    return next((member.weights[name].dtype for name in member.weights), torch.float32)


def _widened(member: Member) -> Member:
    """The member, its tensors in float32 at least; the adapters are so."""
    if not isinstance(member.weights, ModelWeights) or isinstance(member.weights, AdapterWeights):
        return member
    return replace(member, weights=Widened(member))


class Widened(ModelWeights):
    """A member's tensors, in float32 at least."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._weights: Mapping[str, Tensor] = member.weights

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._weights[name]
        return tensor.to(torch.promote_types(tensor.dtype, torch.float32)) if tensor.is_floating_point() else tensor

    def __contains__(self, name: object) -> bool:
        return name in self._weights

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def module(self) -> nn.Module:
        return load_module(self._member)
