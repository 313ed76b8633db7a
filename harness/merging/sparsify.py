"""Ways to make a task vector sparse: by magnitude (TIES), at random (DARE), without outliers (Breadcrumbs), MAGPRUNE.

What implementations differ in is a parameter of each. A random one is given its uniform draws, so that any peer's mask
can be reproduced; ``uniform_draws`` makes those that depend on nothing but the seed, the member and the tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from harness.keys import digest

Keep = Literal["kthvalue", "exactly", "at_least_one"]
"""How many entries of n a density keeps: ``exactly`` int(density * n); ``at_least_one`` of them; or, as the authors of
TIES, all that are ``>= kthvalue(n - int(density * n))``, which is one more, and all that equal it."""

Rescale = Literal["none", "inverse", "l1"]
"""What makes up for dropped entries: nothing, 1 / (probability to be kept), or the tensor's L1 norm restored."""

L1_REMARK = "each tensor keeps the L1 norm it had, and not each entry its expected value"
"""What may surprise in ``l1``."""

Rows = Literal["outputs", "second_axis"]
"""What MAGPRUNE ranks together: all that feeds one output (its paper), or what differs in the second axis alone
(mergekit); the two are one for matrices, not for convolutions."""


def trim(tensor: Tensor, density: float, keep: Keep = "at_least_one") -> Tensor:
    """Zero all but the largest magnitudes; the lowest index first among equals (TIES, arXiv:2306.01708, step 1).

    With ``kthvalue`` nothing is trimmed at density 1, at which the authors' code fails.
    """
    return trimmer({"": tensor.numel()}, lambda: iter([("", tensor)]), density, keep)("", tensor)


Named = tuple[str, Tensor]


def trimmer(
    sizes: Mapping[str, int], tensors: Callable[[], Iterator[Named]], density: float, keep: Keep = "at_least_one"
) -> Callable[[str, Tensor], Tensor]:
    """``trim`` of several tensors as if they were one, of which one at a time is held.

    Args:
        sizes: the number of entries of each tensor, in order.
        tensors: reads the tensors with their names, in this order, each time that it is called: up to three times.
        density: the share of all entries that is kept.
        keep: how many that is.

    Returns:
        What trims the tensor of a name.
    """
    size = sum(sizes.values())
    if keep == "kthvalue":
        count = min(size, int(density * size) + 1)
    else:
        count = max(1 if keep == "at_least_one" and density > 0 else 0, int(density * size))
    if count <= 0 or count >= size:
        return lambda name, tensor: tensor if count else torch.zeros_like(tensor)
    smallest, missing, equals = _select(lambda: (tensor.abs().flatten() for _, tensor in tensors()), count)
    if smallest == 0:
        return lambda name, tensor: tensor
    # hardshrink instead of a mask: on a CPU it is many times as fast
    below = float(torch.nextafter(smallest, torch.zeros_like(smallest)))
    quotas: dict[str, int] = {}
    if keep != "kthvalue" and missing < equals:
        for name, tensor in tensors():
            found = int(torch.count_nonzero(tensor.abs() == smallest))
            if found > missing:
                quotas[name] = missing
            missing -= min(missing, found)

    def trimmed(name: str, tensor: Tensor) -> Tensor:
        whole = functional.hardshrink(tensor, below)
        if name not in quotas:
            return whole
        fewer, flat = functional.hardshrink(tensor, float(smallest)).flatten(), whole.flatten()
        place = _first_with(tensor.abs().flatten() == smallest, quotas[name])
        fewer[:place] = flat[:place]
        return fewer.view_as(tensor)

    return trimmed


def trim_outliers(tensor: Tensor, density: float, outliers: float) -> Tensor:
    """Zero the largest magnitudes, and the smallest until a share of ``density`` is left (arXiv:2312.06795).

    Exactly ``int(density * size)`` entries stay. ``int(outliers * size)`` of the largest go, or fewer where that would
    leave too few. Among equals the later one counts as the larger, as in mergekit's ascending sort.
    """
    size = tensor.numel()
    kept = int(density * size)
    removed = min(int(outliers * size), size - kept)
    magnitude = tensor.abs().flatten()
    inside = largest(magnitude, kept + removed, last=True) & ~largest(magnitude, removed, last=True)
    return tensor * inside.view_as(tensor)


def kth_largest(magnitude: Tensor, k: int) -> Tensor:
    """The k-th largest of magnitudes [d], k from 1."""
    return _select(lambda: iter([magnitude]), k)[0]


SMALL = 4096
"""Entries below which to sort is quicker than to count."""

INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}


def _select(pieces: Callable[[], Iterator[Tensor]], k: int) -> tuple[Tensor, int, int]:
    """The k-th largest of magnitudes in several pieces [d], how many of its equals are among the k largest, and in all.

    Floats that are not negative are ordered as their bits are, so a histogram of each 16 bits in turn finds it, without
    a sort or a partition and exactly: on a CPU in a third of the time of ``kthvalue``, and equals do not slow it down.
    ``pieces`` is read once for each 16 bits.
    """
    first = next(pieces())
    if len(first) < SMALL and sum(len(piece) for piece in pieces()) < SMALL:
        ordered = torch.cat(list(pieces())).sort(descending=True).values
        found = ordered[k - 1]
        return found, k - int(torch.count_nonzero(ordered > found)), int(torch.count_nonzero(ordered == found))
    integer = INTEGERS[first.dtype]
    start, missing, inside = 0, k, 0
    for shift in range(torch.iinfo(integer).bits - 16, -1, -16):
        counts = torch.zeros(1 << 16, dtype=torch.int64, device=first.device)
        for piece in pieces():
            # 0 for what is below the part of the range that is looked at, the last for what is above it
            digits = ((piece.view(integer) - start) >> shift).clamp_(-1, 1 << 16).add_(1)
            counts += torch.bincount(digits, minlength=(1 << 16) + 2)[1:-1]
        reached = counts.flip(0).cumsum(0)  # with this digit or a higher one
        place = int(torch.searchsorted(reached, missing))
        missing -= int(reached[place - 1]) if place else 0
        digit = (1 << 16) - 1 - place
        start += digit << shift
        inside = int(counts[digit])
    return torch.tensor(start, dtype=integer, device=first.device).view(first.dtype), missing, inside


def largest(magnitude: Tensor, count: int, *, last: bool = False) -> Tensor:
    """Which [d] are the ``count`` largest of a vector [d]: of equals the first ones (or the last), without a sort."""
    size = len(magnitude)
    if not 0 < count < size:
        return torch.full((size,), count >= size, device=magnitude.device)
    smallest = kth_largest(magnitude, count)
    chosen, equal = magnitude > smallest, magnitude == smallest
    missing = count - int(torch.count_nonzero(chosen))
    if last:
        place = _first_with(equal, int(torch.count_nonzero(equal)) - missing)
        chosen[place:] |= equal[place:]
    else:
        place = _first_with(equal, missing)
        chosen[:place] |= equal[:place]
    return chosen


def _first_with(mask: Tensor, count: int) -> int:
    """The least length of a start of the mask [d] that holds ``count`` true entries, by bisection."""
    low, high, counted = -1, len(mask) if count else 0, 0
    while high - low > 1:
        middle = (low + high) // 2
        more = int(torch.count_nonzero(mask[max(low, 0) : middle]))
        if counted + more >= count:
            high = middle
        else:
            low, counted = middle, counted + more
    return high


def drop(tensor: Tensor, probability: float | Tensor, draws: Tensor, rescale: Rescale = "inverse") -> Tensor:
    """Zero the entries whose uniform draw in [0, 1) is not below their probability to be kept (DARE, arXiv:2311.03099).

    ``draws`` has the tensor's shape, ``probability`` is one for all or one for each. ``inverse`` keeps the expected
    value of every entry, and ``l1`` (mergekit's) the sum of magnitudes of this draw; a tensor that is dropped whole
    stays 0 with either.
    """
    kept = draws < probability
    if rescale == "inverse":
        return torch.where(kept, tensor / probability, 0.0)  # which may divide by 0 where nothing is kept
    sparse = tensor * kept
    return restore_l1(sparse, tensor) if rescale == "l1" else sparse


def restore_l1(sparse: Tensor, whole: Tensor, floor: float = 0.0) -> Tensor:
    """``sparse`` times what gives it the sum of magnitudes of ``whole``; as it is where either sum is below ``floor``.

    mergekit's floor is 1e-7, below which it leaves the task vectors of small tensors smaller than they were.
    """
    before, after = _l1(whole), _l1(sparse)
    return sparse * (before / after) if after > 0 and min(before, after) >= floor else sparse


def _l1(tensor: Tensor) -> float:
    """The sum of magnitudes in float64, in blocks that leave no copy of a large tensor."""
    return sum(float(block.double().abs().sum()) for block in tensor.flatten().split(1 << 20))


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
    is what identifies it (``Member.draws``): copies of one model have the same draws.
    """
    generator = torch.Generator().manual_seed(int(digest([seed, member, name])[:15], 16))
    return torch.rand(tuple(shape), generator=generator)
