"""How each rule is computed by the compiled functions: the phases of a step, each over all ranges of its tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from ctypes import c_double, c_float
from typing import Any

from harness.streaming import kernels
from harness.streaming.draws import key
from harness.streaming.kernels import BETWEEN, DRAWN, EVERYTHING, NOTHING, Member, Place, Scratch, Sources
from harness.streaming.plan import Step
from harness.streaming.scheduling import Phases, Task
from harness.streaming.selection import find_bounds

ELECTING = ("ties", "dare_ties", "breadcrumbs_ties")
"""Rules with an election of signs."""

TASK_VECTORS = ("task_arithmetic", "ties", "dare_linear", "dare_ties", "breadcrumbs", "breadcrumbs_ties")

SELECTING = ("ties", "breadcrumbs", "breadcrumbs_ties")
"""Rules that keep entries by the rank of their magnitudes."""

RANGE = 1 << 21
"""Elements of a range, by default."""

MOST_RANGES = 32
"""Of a tensor of those: each range holds its counts until all have theirs."""


def ranges(size: int, length: int) -> list[tuple[int, int]]:
    """A tensor's elements in ranges of about this length, which start where blocks do."""
    block = kernels.block_elements()
    length = max(block, length // block * block)
    return [(start, min(start + length, size)) for start in range(0, size, length)]


def computes(step: Step) -> bool:
    """Whether the compiled functions know a step's rule with its parameters."""
    if step.rule in (*TASK_VECTORS, "linear", "passthrough", "nearswap"):
        return True
    from harness.streaming.angles import needs_gram

    return needs_gram(step.rule, step.shared) is not None


class Compiled:
    """A step by the compiled functions.

    Args:
        step: one that ``computes`` says they can, or a copy in another type.
        sources: its open files.
        out: where its result goes.
        length: of a range, in elements.
        wrote: told of the bytes that each range of the result has.
    """

    def __init__(
        self, step: Step, sources: Sources, out: Place, length: int, wrote: Callable[[int, int], None]
    ) -> None:
        self.step, self.sources, self.out, self.wrote = step, sources, out, wrote
        if step.rule in SELECTING:
            length = max(length, -(-step.size // MOST_RANGES))
        self.ranges = ranges(step.size, length)

    def phases(self) -> Phases:
        """The phases of the step."""
        rule = self.step.rule
        if rule == "copy":
            yield self._writing("convert", self.sources, self.out)
        elif rule in TASK_VECTORS:
            yield from self._task_vectors()
        elif rule == "nearswap":
            yield self._writing("nearswap", self._base_first(), self.step.shared["t"], self.out)
        else:
            yield from self._sum()

    def _writing(self, function: str, sources: Sources, *arguments: Any) -> list[Callable[[Scratch], None]]:
        """A task for each range, whose arguments are made when it is run: members count their ranks in them."""

        def task(first: int, last: int) -> Callable[[Scratch], None]:
            def run(scratch: Scratch) -> None:
                given = [each(first) if callable(each) else each for each in arguments]
                kernels.call(function, sources, *given, first, last, scratch.of(len(sources.tensors)))
                self.wrote(first, last)

            return run

        return [task(first, last) for first, last in self.ranges]

    def _sum(self) -> Phases:
        """linear, passthrough and the rules whose coefficients follow from inner products."""
        step, count = self.step, len(self.step.sources)
        divisor = 0.0
        if step.rule == "linear":
            factors = [float(weight) for weight in step.each["weight"]]
            if step.shared["normalize"]:
                divisor = _float_sum(factors)
        elif step.rule == "passthrough":
            factors = [1.0 if step.each["scale"][0] is None else step.each["scale"][0]]
        else:
            from harness.streaming.angles import coefficients, needs_gram

            differences = needs_gram(step.rule, step.shared) == "differences" and step.base is not None
            factors = coefficients(step, (yield from self.gram(differences)))
        array = (c_float * count)(*factors)
        yield self._writing("weighted_sum", self.sources, count, array, int(step.rule == "linear"), divisor, self.out)

    def gram(self, differences: bool) -> Generator[list[Task], list[Any], Any]:
        import numpy as np

        count = len(self.step.sources)
        base = self.step.base if differences else -1

        def task(first: int, last: int) -> Callable[[Scratch], list[float]]:
            def run(scratch: Scratch) -> list[float]:
                products = (c_double * (_blocks(first, last) * count * count))()
                kernels.call("gram", self.sources, count, base, first, last, scratch.of(count), products)
                return list(products)

            return run

        found: list[list[float]] = yield [task(first, last) for first, last in self.ranges]
        return np.array(_sums(found, count * count)).reshape(count, count)

    def _base_first(self) -> Sources:
        base = self.step.base
        assert base is not None
        tensors = self.sources.tensors
        return self.sources.in_order([base, *(i for i in range(len(tensors)) if i != base)])

    def _task_vectors(self) -> Phases:
        step = self.step
        sources = self._base_first()
        tuned = [i for i in range(len(step.sources)) if i != step.base]
        weights = [float(step.each["weight"][i]) for i in tuned]
        members = [self._member(i, weight) for i, weight in zip(tuned, weights, strict=True)]
        wanted = {m: self._counts(i) for m, i in enumerate(tuned) if members[m].keep == BETWEEN}
        before = yield from find_bounds(sources, members, wanted, step.rule != "ties", self.ranges)

        def at(first: int) -> Any:
            own = (Member * len(members))(*members)
            for member, ranks in zip(own, before, strict=True):
                member.low_before, member.high_before = ranks[first]
            return own

        if step.shared["rescale"] and any(member.keep != EVERYTHING for member in members):
            yield from self._rescale(sources, members, at)
        divisor = _float_sum(weights)
        yield self._writing(
            "merge_vectors",
            sources,
            at,
            len(members),
            int(step.rule in ELECTING),
            int(step.shared["normalize"]),
            divisor if abs(divisor) >= 1e-8 else 1.0,
            step.shared["lambda"],
            self.out,
        )

    def _member(self, source: int, weight: float) -> Member:
        """What is kept, but for bounds."""
        step = self.step
        density = 1.0 if step.rule == "task_arithmetic" else step.each["density"][source]
        member = Member(keep=EVERYTHING, weight=weight, factor=1)
        if density >= 1:
            return member
        if density <= 0:
            member.keep = NOTHING
        elif step.rule.startswith("dare"):
            member.keep = DRAWN
            member.key = key(step.seed, step.draws[source], step.name)
            member.below = math.ceil(c_float(density).value * (1 << 24))
        else:
            member.keep = BETWEEN
        return member

    def _rescale(self, sources: Sources, members: list[Member], at: Callable[[int], Any]) -> Phases:
        """The factors that restore each member's sum of magnitudes."""

        def task(first: int, last: int) -> Callable[[Scratch], list[float]]:
            def run(scratch: Scratch) -> list[float]:
                sums = (c_double * (_blocks(first, last) * len(members) * 2))()
                memory = scratch.of(len(sources.tensors))
                kernels.call("sum_magnitudes", sources, at(first), len(members), first, last, memory, sums)
                return list(sums)

            return run

        found = yield [task(first, last) for first, last in self.ranges]
        sums = _sums(found, 2 * len(members))
        for member, whole, kept in zip(members, sums[::2], sums[1::2], strict=True):
            if member.keep != EVERYTHING and whole >= 1e-7 and kept >= 1e-7:
                member.factor = whole / kept

    def _counts(self, source: int) -> tuple[int, int]:
        """How many entries stay, and how many larger ones go."""
        size, density = self.step.size, self.step.each["density"][source]
        if self.step.rule == "ties":
            return max(1, int(density * size)), 0
        kept = int(density * size)
        return kept, max(0, min(int(self.step.each["gamma"][source] * size), size - kept))


def _blocks(first: int, last: int) -> int:
    return -(-(last - first) // kernels.block_elements())


def _sums(found: Sequence[Sequence[float]], width: int) -> list[float]:
    """Sums [width] over all blocks of all ranges, in which no order has a part."""
    return [math.fsum(value for each in found for value in each[place::width]) for place in range(width)]


def _float_sum(values: Sequence[float]) -> float:
    """In float32, one after the other."""
    total = c_float(0)
    for value in values:
        total = c_float(total.value + c_float(value).value)
    return total.value
