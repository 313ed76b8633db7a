"""How large a suite may be: what asks for more was mistyped, and is refused before hours are planned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from harness.display.formats import amount
from harness.errors import BadInput
from harness.models.architectures import build, trainable
from harness.pools.source import AskedPool, PoolPlan
from harness.strict import yaml

MEMBERS = 10_000
"""Of all pools of a suite together."""
VARIANTS = 20_000
"""Of a suite, on each seed."""
SEEDS = 1_000
ROWS = 100_000
"""Variants, or members, times seeds: what a run's tables have a row for."""


def check_members(pools: Mapping[str, AskedPool], seeds: Sequence[int], document: yaml.Document) -> None:
    """``BadInput`` where pools and seeds are more than a run can hold."""
    members = sum(asked.size for asked in pools.values())
    if len(seeds) > SEEDS:
        raise _too_many(len(seeds), "seeds", SEEDS, document.place(("seeds",)))
    if members > MEMBERS:
        raise _too_many(members, "members", MEMBERS, document.place(("pool",)))
    if members * len(seeds) > ROWS:
        raise _too_many(members * len(seeds), "members over all seeds", ROWS, document.place(("seeds",)))


def check_weights(planned: PoolPlan, usual: Mapping[str, int], memory: int) -> None:
    """``BadInput`` where a network that is made here, of a size that a suite chose, is larger than all memory.

    Args:
        planned: the pool's members; nothing of them is allocated.
        usual: the options that every network of the task has.
        memory: of the machine, in bytes.
    """
    for made in sorted({member.architecture for member in planned.everyone}, key=str):
        if made.name not in trainable() or not dict(made.options).keys() - usual.keys():
            continue
        with torch.device("meta"):
            weights = sum(tensor.nbytes for tensor in build(made).state_dict().values())
        if weights > memory:
            problem = f"a network '{made}' of pool '{planned.name}' has weights of {amount(weights)}B"
            raise BadInput(problem, hint=f"all memory of this machine is {amount(memory)}B")


class Counted:
    """How many variants the items of ``methods`` ask for, told before any is made.

    Args:
        seeds: of the suite.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds, self.variants = len(seeds), 0

    def add(self, options: Mapping[str, Any], sets: int, place: str) -> None:
        """Count one item; ``BadInput`` at its place where they are too many.

        Args:
            options: the parameters of its method, of which a list is one variant for each value.
            sets: pools times sets of members that each is asked for.
            place: the item's.
        """
        self.variants += sets * math.prod(len(value) for value in options.values() if isinstance(value, list))
        if self.variants > VARIANTS:
            raise _too_many(self.variants, "variants", VARIANTS, place)
        if self.variants * self.seeds > ROWS:
            raise _too_many(self.variants * self.seeds, "variants over all seeds", ROWS, place)


def _too_many(count: int, what: str, most: int, place: str) -> BadInput:
    return BadInput(f"{count:,} {what} are too many", place=place, hint=f"a suite has at most {most:,}")
