"""One variant on one seed: which members it touches, what its artefacts are called, and how it is loaded again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch

from harness.evaluate import outcomes, predictions
from harness.keys import Key, digest
from harness.methods.method import Method
from harness.models.tokens import reading
from harness.pools.pool import base_digest, load_pool, member_digests, seed_of
from harness.pools.source import Known, MemberPlan, PoolPlan
from harness.registry import KINDS, METHODS, module_of
from harness.run import building, evaluating
from harness.run.building import BUILT
from harness.run.stages.setting import Data, Setting, task_of
from harness.store import Store, read_json
from harness.systems.parts import MemberPart
from harness.systems.systems import load_combination
from harness.tasks.text import settings_digest
from harness.types import Combination, Pool

MANY = 256
"""Members that a key names one by one, and with it the manifest of an artefact; of more it has the digest."""


@dataclass(frozen=True, eq=False)
class VariantPlan:
    """One variant on one seed."""

    name: str
    method: str
    parameters: Mapping[str, Any]
    positions: tuple[int, ...] | None
    """In the pool, of the members that it is given; None: all of them."""
    pool: PoolPlan
    seed: int
    data: Data
    device: str

    def __getstate__(self) -> dict[str, Any]:
        """Without its keys: a worker names what it makes after the code that it has loaded itself."""
        return {name: value for name, value in self.__dict__.items() if name not in ("build_key", "evaluation_key")}

    @property
    def declared(self) -> Method:
        """Its method."""
        return METHODS.get(self.method)

    @property
    def digests(self) -> tuple[str, ...]:
        """Of the members that it is given."""
        everything = member_digests(self.pool)
        return everything if self.positions is None else tuple(everything[i] for i in self.positions)

    @property
    def used(self) -> tuple[int, ...]:
        """The positions in the pool of the members that it touches: what becomes of any other is nothing to it."""
        given = self._given
        named = self.declared.uses(self.parameters)
        return given if named is None else tuple(given[i] for i in named if i < len(given))

    @property
    def _given(self) -> tuple[int, ...]:
        if self.positions is not None:
            return self.positions
        return self.pool.once("all", lambda: tuple(range(len(self.pool.by_position))))

    @property
    def sources(self) -> tuple[MemberPlan, ...]:
        """Where these members come from and, if its method needs that, their base."""
        base = (self.pool.base,) if self.pool.base and self.uses_base else ()
        return self.once("sources", lambda used: (*base, *self.pool.sources(used)))

    def once(self, what: Hashable, make: Callable[[tuple[int, ...]], Known]) -> Known:
        """What ``make`` gives of the positions that are touched, made once for all variants that touch the same."""
        used = self.used
        return self.pool.once((what, used, self.uses_base), lambda: make(used))

    @property
    def uses_base(self) -> bool:
        return "base" in self.declared.needs

    @property
    def runs_members(self) -> bool:
        """Whether it runs members as they are, and is no one model made of them."""
        return self.declared.family in ("single", "output", "staged")

    @cached_property
    def build_key(self) -> Key:
        return Key.of(
            "build",
            code=building.makers(self.declared, self.data.kind),
            method=self.method,
            parameters=dict(self.parameters),
            pool_kind=self.pool.kind,
            members=self.digests if len(self.digests) <= MANY else digest(self.digests),
            base=base_digest(self.pool),
            seed=self.method_seed,
            splits=[self.data.train, self.data.heldout],
            batch=self.data.batch,
            device=self.device,
            **({"scored": self.data.scored} if self.declared.writes else {}),  # whether it applies depends on that
        )

    @property
    def method_seed(self) -> int:
        """The seed of what is random in building it: the same whatever else the suite holds."""
        return seed_of(self.seed, self.method, dict(self.parameters), self.positions) % 2**31

    @cached_property
    def evaluation_key(self) -> Key:
        build = self.build_key.digest
        code = (evaluating.__name__, module_of(KINDS.get(self.data.kind)), *predictions.MAKERS, *outcomes.makers())
        settings = [self.data.settings, *self.once("settings", self._settings)]
        written = {"settings": settings} if any(settings) else {}  # how language models write, if the tasks ask for it
        return Key.of("evaluation", code=code, build=build, test=self.data.scored, batch=self.data.batch, **written)

    def _settings(self, used: tuple[int, ...]) -> list[str]:
        """How the models that it touches write by their own account."""
        return [settings_digest(each.folder) for each in self.sources if each.folder]

    def is_same_as(self, other: VariantPlan) -> bool:
        """Whether the two are one system, under whatever names."""
        return self.build_key == other.build_key


def built(store: Store, plan: VariantPlan) -> dict[str, Any] | None:
    """What building a variant left: its status, seconds and details; None if it was not built."""
    return _built(store.read(plan.build_key)) if store.has(plan.build_key) else None


@lru_cache(maxsize=4096)
def _built(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = read_json(folder / BUILT)  # an artefact never changes
    return record


def is_built(store: Store, plan: VariantPlan) -> bool:
    """Whether a variant was built, and applies."""
    record = built(store, plan)
    return record is not None and record["status"] == "ok"


def is_inapplicable(store: Store, plan: VariantPlan) -> bool:
    """Whether a variant is known not to apply: the reason is all that there will be of it."""
    record = built(store, plan)
    return record is not None and record["status"] != "ok"


@lru_cache(maxsize=64)
def pool_of(setting: Setting, plan: PoolPlan, used: tuple[int, ...] | None = None, with_base: bool = True) -> Pool:
    """The pool; of members that are not among ``used``, the names only."""
    return reading(load_pool(plan, setting.store, used, with_base), task_of(setting).heldout.tokenizer)


def members_of(setting: Setting, plan: VariantPlan) -> Pool:
    """The pool of the members that a variant is given."""
    pool = pool_of(setting, plan.pool, plan.used, plan.uses_base)
    return pool if plan.positions is None else pool.subset(plan.positions)


def load_built(setting: Setting, plan: VariantPlan, shared: dict[str, MemberPart] | None = None) -> Combination:
    """A variant as it was built; ``shared`` as in ``load_combination``."""
    folder, device = setting.store.read(plan.build_key), torch.device(setting.device)
    return load_combination(folder, members_of(setting, plan), device, shared)
