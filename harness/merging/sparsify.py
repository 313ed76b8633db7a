"""Ways to make a task vector sparse: by magnitude (TIES), at random (DARE), without outliers (Breadcrumbs), MAGPRUNE.

What implementations differ in is a parameter of each. A random one is given its uniform draws, so that any peer's mask
can be reproduced; ``uniform_draws`` makes those that depend on nothing but the seed, the member and the tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from harness.store import digest

Keep = Literal["kthvalue", "exactly", "at_least_one"]
"""How many entries of n a density keeps: ``exactly`` int(density * n); ``at_least_one`` of them; or, as the authors of
TIES, all that are ``>= kthvalue(n - int(density * n))``, which is one more, and all that equal it."""

Rescale = Literal["none", "inverse", "l1"]
"""What makes up for dropped entries: nothing, 1 / (probability to be kept), or the tensor's L1 norm restored."""

Rows = Literal["outputs", "second_axis"]
"""What MAGPRUNE ranks together: all that feeds one output (its paper), or what differs in the second axis alone
(mergekit); the two are one for matrices, not for convolutions."""


def trim(tensor: Tensor, density: float, keep: Keep = "at_least_one") -> Tensor:
    """Zero all but the largest magnitudes; the lowest index first among equals (TIES, arXiv:2306.01708, step 1).

    With ``kthvalue`` nothing is trimmed at density 1, at which the authors' code fails.
    """
    size = tensor.numel()
    magnitude = tensor.abs().flatten()
    if keep == "kthvalue":
        kept = magnitude >= magnitude.kthvalue(max(1, size - int(density * size))).values
    else:
        fewest = 1 if keep == "at_least_one" and density > 0 else 0
        kept = _largest(magnitude, max(fewest, int(density * size)))
    return torch.where(kept.view_as(tensor), tensor, 0.0)


def trim_outliers(tensor: Tensor, density: float, outliers: float) -> Tensor:
    """Zero the largest magnitudes, and the smallest until a share of ``density`` is left (arXiv:2312.06795).

    Exactly ``int(density * size)`` entries stay. ``int(outliers * size)`` of the largest go, or fewer where that would
    leave too few. Among equals the later one counts as the larger, as in mergekit's ascending sort.
    """
    size = tensor.numel()
    kept = int(density * size)
    removed = min(int(outliers * size), size - kept)
    magnitude = tensor.abs().flatten()
    inside = _largest(magnitude, kept + removed, last=True) & ~_largest(magnitude, removed, last=True)
    return torch.where(inside.view_as(tensor), tensor, 0.0)


def _largest(magnitude: Tensor, count: int, *, last: bool = False) -> Tensor:
    """Which [d] are the ``count`` largest of a vector [d]: of equals the first ones (or the last), without a sort."""
    size = len(magnitude)
    if not 0 < count < size:
        return torch.full((size,), count >= size, device=magnitude.device)
    smallest = magnitude.kthvalue(size - count + 1).values
    found = magnitude > smallest
    equal = (magnitude == smallest).nonzero().flatten()
    missing = count - int(found.sum())
    found[equal[-missing:] if last else equal[:missing]] = True
    return found


def drop(tensor: Tensor, probability: float | Tensor, draws: Tensor, rescale: Rescale = "inverse") -> Tensor:
    """Zero the entries whose uniform draw in [0, 1) is not below their probability to be kept (DARE, arXiv:2311.03099).

    ``draws`` has the tensor's shape, ``probability`` is one for all or one for each. ``inverse`` keeps the expected
    value of every entry, and ``l1`` (mergekit's) the sum of magnitudes of this draw; a tensor that is dropped whole
    stays 0 with either.
    """
    kept = draws < probability
    if rescale == "inverse":
        return torch.where(kept, tensor / probability, 0.0)
    sparse = torch.where(kept, tensor, 0.0)
    if rescale == "l1" and (left := sparse.abs().sum()) > 0:
        return sparse * (tensor.abs().sum() / left)
    return sparse


def magprune_probabilities(tensor: Tensor, density: float, epsilon: float, rows: Rows = "outputs") -> Tensor:
    """Each entry's probability to be kept, in the tensor's shape: larger ones are likelier (DELLA, arXiv:2406.11617).

    It rises evenly with the rank of the magnitude in its row, from ``density - epsilon`` to ``density + epsilon``
    (the authors call ``2 epsilon`` the window), the lower index below among equals; ``density`` if alone in its row.
    """
    table = tensor.reshape(1, -1) if tensor.dim() < 2 else tensor
    if rows == "outputs":
        table = table.flatten(1)
    width = table.shape[1]
    order = table.abs().argsort(dim=1, stable=True)
    places = torch.arange(width, device=tensor.device).view(1, width, *[1] * (table.dim() - 2))
    ranks = torch.empty_like(order).scatter_(1, order, places.expand_as(order))
    share = ranks.to(tensor.dtype) / (width - 1) if width > 1 else torch.full_like(table, 0.5)
    return ((density - epsilon) + share * 2 * epsilon).view_as(tensor)


def uniform_draws(shape: Sequence[int], seed: int, member: str, name: str) -> Tensor:
    """Uniform draws in [0, 1) of this shape, in float32 on the CPU, that belong to this seed, member and tensor.

    Neither the global generator, nor the member's position, nor the order of the tensors has a part in them. ``member``
    is what identifies its content (a digest): copies of one model have the same draws.
    """
    generator = torch.Generator().manual_seed(int(digest([seed, member, name])[:15], 16))
    return torch.rand(tuple(shape), generator=generator)
