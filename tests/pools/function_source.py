"""A source of members in one file, as a package from outside has it: a function makes their weights from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pydantic
import torch
from torch import Tensor

from harness.errors import BadInput
from harness.keys import digest
from harness.models.architectures import build, trainable
from harness.pools.pool import seed_of
from harness.pools.source import MemberPlan, PoolPlan, PoolSource
from harness.store import Store
from harness.strict.fields import Count, Positive
from harness.strict.model import STRICT
from harness.tasks.task import Task
from harness.types import Architecture


class FunctionPool(pydantic.BaseModel):
    """Random networks that lie around one random network."""

    model_config = STRICT

    architecture: str = "small_cnn"
    members: Count
    spread: Positive = 0.1


@dataclass(frozen=True)
class Made(MemberPlan):
    """One network: the common one and noise. It takes no time to make, so nothing is kept."""

    spread: float
    common: int
    """The seed of the network that all lie around."""

    verb: ClassVar[str] = "make"

    @property
    def identities(self) -> tuple[str, ...]:
        return (digest([self.start, self.seed, self.spread]),)

    @property
    def start(self) -> str:
        return digest([str(self.architecture), self.common])

    def weights(self, store: Store, position: int) -> Mapping[str, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.common)
            network = build(self.architecture).state_dict()
        noise = torch.Generator().manual_seed(self.seed)
        return {name: each + self.spread * torch.randn(each.shape, generator=noise) for name, each in network.items()}

    def describe(self) -> dict[str, Any]:
        return {"how": f"random, spread {self.spread:g}", "seed": self.seed}


class Function(PoolSource):
    """Networks whose weights are random."""

    name = "function"
    spec = FunctionPool

    def size(self, spec: FunctionPool) -> int:
        return spec.members

    def check(self, spec: FunctionPool, place: Callable[..., str]) -> None:
        if (name := spec.architecture) not in (known := trainable()):
            raise BadInput(f"unknown architecture '{name}'", place=place("architecture"), given=name, choices=known)

    def plan(self, name: str, spec: FunctionPool, task: Task, seed: int) -> PoolPlan:
        architecture = Architecture(spec.architecture, tuple(sorted(task.shape.items())))
        common = seed_of(seed, self.name, "common")
        members = [
            Made(f"m{index}", architecture, spec.spread, common, seed=seed_of(seed, self.name, index))
            for index in range(spec.members)
        ]
        return PoolPlan(name, "fine_tunes", tuple(members), None)
