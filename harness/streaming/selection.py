"""Between which magnitudes exactly so many entries of a task vector lie: by counting, without sorting or holding them.

Floats that are not negative are ordered as their bits are. A first pass counts them by their 16 high bits, a second
those of the bin in question by the 15 low ones, in each range of the tensor: so it is known too how many equals of a
bound come before each range, and of those only some may be kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Mapping, Sequence
from ctypes import c_int32, c_int64, c_uint32
from dataclasses import dataclass
from typing import Any

from harness.streaming import kernels
from harness.streaming.kernels import (
    BETWEEN,
    EVERYTHING,
    HIGH_BINS,
    INFINITE,
    LOW_BINS,
    NOTHING,
    Member,
    Scratch,
    Sources,
)
from harness.streaming.scheduling import Task

Ranges = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Kth:
    """The k-th largest magnitude of a task vector."""

    bits: int
    rank: int
    """Among its equals, from 1."""
    equal: list[int]
    """How many equals each range has."""

    @property
    def before(self) -> list[int]:
        """How many equals come before each range."""
        return [0, *itertools.accumulate(self.equal[:-1])]


def find_bounds(
    sources: Sources, members: Sequence[Member], counts: Mapping[int, tuple[int, int]], last: bool, ranges: Ranges
) -> Generator[list[Task], list[Any], list[dict[int, tuple[int, int]]]]:
    """Set what members keep.

    Args:
        sources: the base and one for each member.
        members: the ones to set.
        counts: of those by their place, how many entries stay, and how many larger ones go.
        last: whether of equals the last count as the largest, not the first.
        ranges: of the elements.

    Returns:
        For each member, by a range's start, how many equals of its lower and its upper bound come before.
    """
    size = ranges[-1][1]
    wanted: list[tuple[int, int]] = []
    for place, (kept, removed) in counts.items():
        member = members[place]
        member.keep = EVERYTHING if kept >= size else BETWEEN if kept else NOTHING
        member.low, member.low_first, member.low_last = 0, 0, size
        member.high = INFINITE
        if member.keep == BETWEEN:
            wanted.extend((place, k) for k in {kept + removed, removed} if 0 < k < size)
    found = (yield from _select(sources, wanted, ranges)) if wanted else {}
    before = [{first: (0, 0) for first, _ in ranges} for _ in members]
    for place, (kept, removed) in counts.items():
        lower, upper = found.get((place, kept + removed)), found.get((place, removed))
        if members[place].keep == BETWEEN:
            _set(members[place], lower, upper, last)
            ranks = [kth.before if kth else [0] * len(ranges) for kth in (lower, upper)]
            before[place] = {first: pair for (first, _), pair in zip(ranges, zip(*ranks, strict=True), strict=True)}
    return before


def _set(member: Member, lower: Kth | None, upper: Kth | None, last: bool) -> None:
    """The bounds, and which of their equals are kept: those that count as larger than the lower one's first are."""
    if lower is not None:
        equals = sum(lower.equal)
        member.low = lower.bits
        member.low_first, member.low_last = (equals - lower.rank, equals) if last else (0, lower.rank)
    if upper is not None:
        equals = sum(upper.equal)
        member.high = upper.bits
        member.high_first, member.high_last = (0, equals - upper.rank) if last else (upper.rank, equals)
        if lower is not None and member.low == member.high:
            member.low_first = max(member.low_first, member.high_first)
            member.low_last = min(member.low_last, member.high_last)


def _select(
    sources: Sources, wanted: Sequence[tuple[int, int]], ranges: Ranges
) -> Generator[list[Task], list[Any], dict[tuple[int, int], Kth]]:
    """The k-th largest magnitudes of members, for each of the pairs (member, k)."""
    places = sorted({place for place, _ in wanted})
    sources = sources.in_order([0, *(1 + place for place in places)])
    totals = (c_int64 * (len(places) * HIGH_BINS))()

    def count_high(first: int, last: int) -> Callable[[Scratch], None]:
        def run(scratch: Scratch) -> None:
            memory = scratch.of(len(sources.tensors))
            kernels.call("count_high", sources, len(places), first, last, memory, totals)

        return run

    yield [count_high(first, last) for first, last in ranges]
    whose = [places.index(place) for place, _ in wanted]
    bins = [kernels.kth_high(totals, own, k) for own, (_, k) in zip(whose, wanted, strict=True)]
    members, highs = (c_int32 * len(whose))(*whose), (c_uint32 * len(whose))(*[high for high, _ in bins])

    def count_low(first: int, last: int) -> Callable[[Scratch], Any]:
        def run(scratch: Scratch) -> Any:
            counts = (c_uint32 * (len(whose) * LOW_BINS))()
            memory = scratch.of(len(sources.tensors))
            arguments = (len(places), members, highs, len(whose), first, last, memory, counts)
            kernels.call("count_low", sources, *arguments)
            return counts

        return run

    counts = yield [count_low(first, last) for first, last in ranges]
    found = {}
    for bound, ((place, k), (high, above)) in enumerate(zip(wanted, bins, strict=True)):
        low, more, equal = kernels.kth_low(counts, bound, k - above)
        found[place, k] = Kth(bits=high << 15 | low, rank=k - above - more, equal=equal)
    return found
