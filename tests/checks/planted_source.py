"""A source of members that keeps all laws, in the smallest way; tests break one law in each copy."""

from dataclasses import dataclass
from typing import ClassVar

import pydantic
import torch

from harness.keys import digest
from harness.models.architectures import build
from harness.pools.pool import seed_of
from harness.pools.source import MemberPlan, PoolPlan, PoolSource
from harness.strict.model import STRICT
from harness.types import Architecture


class Spec(pydantic.BaseModel):
    model_config = STRICT
    members: int = 2


@dataclass(frozen=True)
class Plan(MemberPlan):
    @property
    def identities(self):
        return (digest([str(self.architecture), self.seed]),)

    def weights(self, store, position):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return build(self.architecture).state_dict()

    def describe(self):
        return {"how": "drawn", "seed": self.seed}


class Source(PoolSource):
    name = "planted"
    spec = Spec
    plans: ClassVar = Plan

    def size(self, spec):
        return spec.members

    def plan(self, name, spec, task, seed):
        line = Architecture("line", tuple(sorted(task.shape.items())))
        members = [self.plans(f"m{i}", line, seed=seed_of(seed, "planted", i)) for i in range(spec.members)]
        return PoolPlan(name, "independent", tuple(members), None)
