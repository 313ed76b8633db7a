"""The laws of sources of members: what every registered source owes a run, on one small pool of its members."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.checks.law import law, laws, require, sent
from harness.checks.tasks import USUAL, Given, few, tried
from harness.pools.source import MemberPlan, PoolPlan, PoolSource
from harness.registry import SOURCES
from harness.store import MANIFEST, Store
from harness.systems.parts import MemberPart
from harness.tasks.task import Task
from harness.types import Member, NotApplicable

CPU = torch.device("cpu")
SEED = 3


def check_source(
    name: str, spec: Mapping[str, Any] | None = None, task: Given = USUAL, folder: Path | None = None
) -> None:
    """Run every law on a registered source of members.

    Args:
        name: of the source.
        spec: what a suite would say below its name under ``pool:``, of a small pool; by default nothing.
        task: what a suite would say under ``task:``.
        folder: that paths are relative to.

    Raises:
        BrokenLaw: the first that does not hold.
    """
    on = TriedPool(SOURCES.get(name), spec or {}, tried(task, folder).task, folder or Path())
    for each in laws("source"):
        each(on.source, on)


class TriedPool:
    """A pool that a suite asks for, planned and prepared, each as often as laws ask."""

    def __init__(self, source: PoolSource, spec: Mapping[str, Any], task: Task, folder: Path) -> None:
        self.source, self.task = source, task
        self.spec = source.fetched(source.beside(source.spec.model_validate(dict(spec)), folder))
        self._place = tempfile.TemporaryDirectory()

    def plan(self, seed: int = SEED) -> PoolPlan:
        """The members, planned anew and checked against the task."""
        planned = self.source.plan("main", self.spec, self.task, seed)
        for member in planned.everyone:
            member.check(self.task, "main")
        return planned

    def prepare(self, plan: PoolPlan, store: Store) -> None:
        """All members, the base first."""
        for member in plan.everyone:
            member.prepare(self.task.of_groups(member.groups), store, CPU)

    def weights(self, plan: PoolPlan, store: Store) -> list[dict[str, Tensor]]:
        """Of every member that the plan leaves."""
        return [_tensors(member, store, i) for member, i in members_of(plan)]

    def store(self, name: str) -> Store:
        """A store by name, empty when it is first asked for."""
        return Store(Path(self._place.name) / name)

    @cached_property
    def prepared(self) -> tuple[PoolPlan, Store]:
        """The plan, and a store that its members have been prepared in."""
        plan, store = self.plan(), self.store("first")
        self.prepare(plan, store)
        return plan, store


def members_of(plan: PoolPlan) -> list[tuple[MemberPlan, int]]:
    """Each member's plan, with the position of the member among those that the plan leaves."""
    return [(member, i) for member in plan.members for i in range(len(member.digests))]


def _tensors(plan: MemberPlan, store: Store, position: int) -> dict[str, Tensor]:
    """All that a member's numbers depend on: its weights or, where it has none, what its network holds."""
    member = plan.member(store, position)
    return dict(MemberPart(member).module.state_dict() if plan.why_no_weights else member.weights)


def _equal(one: list[dict[str, Tensor]], other: list[dict[str, Tensor]]) -> bool:
    same_names = [set(each) for each in one] == [set(each) for each in other]
    return same_names and all(
        torch.equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a
    )


@law("source")
def a_pool_has_the_size_that_is_said(source: PoolSource, on: TriedPool) -> None:
    """There are as many members as ``size`` says, at least one, with names of their own."""
    plan, size = on.plan(), source.size(on.spec)
    count = len(members_of(plan))
    require(count == size >= 1, f"{count} members are planned, and the size is {size}")
    names = [member.name for member in plan.everyone]
    require(len(set(names)) == len(names), f"two members have one name: {names}")
    require(plan.name == "main", f"the pool is called '{plan.name}', and the suite calls it 'main'")


@law("source")
def planned_twice_it_is_the_same(source: PoolSource, on: TriedPool) -> None:
    """Two plans of one spec are equal, in another process too: plans are hashed and sent."""
    first, second = on.plan(), on.plan()
    require(first == second, "planned twice, the pools are not equal")
    require(hash(first) == hash(second), "planned twice, the pools have two hashes")
    require(sent(first) == first, "a plan that was sent to another process is another one")
    for one, other in zip(first.everyone, second.everyone, strict=True):
        require(one.digests == other.digests, f"planned twice, '{one.name}' has other digests")
        require(one.keys() == other.keys(), f"planned twice, '{one.name}' leaves other artefacts")


@law("source")
def digests_are_known_beforehand(source: PoolSource, on: TriedPool) -> None:
    """The digest of a member is the same before and after it was made."""
    before = [member.digests for member in on.plan().everyone]
    plan, store = on.prepared
    require([member.digests for member in plan.everyone] == before, "preparing changes the digests of the plans")
    for member, position in members_of(plan):
        made = member.member(store, position).digest
        expected = member.digests[position]
        require(made == expected, f"the member of '{member.name}' has the digest {made}, and its plan {expected}")


@law("source")
def what_is_prepared_is_there(source: PoolSource, on: TriedPool) -> None:
    """After ``prepare`` all ``keys`` are in the store, and preparing again writes nothing."""
    plan, store = on.prepared
    for member in plan.everyone:
        left = member.keys()
        missing = [key.kind for key in left if not store.has(key)]
        require(not missing, f"'{member.name}' was prepared, and its artefacts are missing: {missing}")
    times = _times(store)
    on.prepare(plan, store)
    require(_times(store) == times, "preparing what is there already writes artefacts again")


def _times(store: Store) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in store.root.rglob(MANIFEST)}


@law("source")
def same_seed_same_members(source: PoolSource, on: TriedPool) -> None:
    """In another store, with the global generator in another state, the weights are equal to the bit."""
    plan, store = on.prepared
    torch.manual_seed(99)
    again = on.store("again")
    on.prepare(on.plan(), again)
    require(_equal(on.weights(plan, store), on.weights(plan, again)), "prepared twice, the members have other weights")


@law("source")
def another_digest_is_another_member(source: PoolSource, on: TriedPool) -> None:
    """Of another seed, a member has other weights exactly if it has another digest."""
    (plan, store), other = on.prepared, on.plan(SEED + 1)
    there = on.store("other seed")
    on.prepare(other, there)
    for number, ((one, i), (another, j)) in enumerate(zip(members_of(plan), members_of(other), strict=True)):
        same_digest = one.digests[i] == another.digests[j]
        same_weights = _equal([_tensors(one, store, i)], [_tensors(another, there, j)])
        words = f"of two seeds, member {number} has {'one digest' if same_digest else 'two digests'}"
        require(same_digest == same_weights, f"{words} and {'equal' if same_weights else 'other'} weights")


@law("source")
def members_can_be_run(source: PoolSource, on: TriedPool) -> None:
    """Weights are finite and fit the architecture; inputs that it reads give normalised log-probabilities.

    One without weights says so where they are touched.
    """
    plan, store = on.prepared
    for member, position in members_of(plan):
        part = MemberPart(member.member(store, position))
        notes = member.examine(part)
        require(all(isinstance(note, str) for note in notes), f"'{member.name}' is noted {notes}")
        if member.why_no_weights:
            require(_is_refused(part.member), f"'{member.name}' has no weights, and does not say so where it is asked")
        for name, tensor in part.module.state_dict().items() if not member.why_no_weights else ():
            require(torch.isfinite(tensor).all(), f"'{member.name}' has '{name}' with numbers that are not finite")
        if member.reads(on.task):
            examples = few(on.task.test, 8)
            with torch.inference_mode():
                log_probs = part.log_probs(examples.inputs)
            rows, sums = len(log_probs) == len(examples.labels), log_probs.double().exp().sum(dim=-1)
            require(rows, f"'{member.name}' gives {tuple(log_probs.shape)} for {len(examples.labels)} labels")
            normalised = (sums - 1).abs().max() < 1e-4
            require(normalised, f"'{member.name}' gives probabilities that sum to {sums.min()} to {sums.max()}")


def _is_refused(member: Member) -> bool:
    try:
        _ = dict(member.weights)
    except NotApplicable as reason:
        return bool(str(reason).strip())
    return False


@law("source")
def global_random_state_is_unchanged(source: PoolSource, on: TriedPool) -> None:
    """Planning, preparing and reading neither draw from the global generator nor seed it."""
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    plan, store = on.plan(), on.store("with the generator watched")
    on.prepare(plan, store)
    on.weights(plan, store)
    require(torch.equal(torch.random.get_rng_state(), before), "torch's global generator is in another state")


@law("source")
def members_are_described(source: PoolSource, on: TriedPool) -> None:
    """``describe`` is JSON that says ``how`` in words and the ``seed``; expected seconds are a number."""
    for member in on.plan().everyone:
        description = member.describe()
        json.dumps(description, allow_nan=False)
        require(str(description.get("how", "")).strip(), f"'{member.name}' does not say how it is made")
        require("seed" in description, f"'{member.name}' does not say its seed, or None")
        seconds = member.seconds(on.task, 0.001)
        require(math.isfinite(seconds) and seconds >= 0, f"preparing '{member.name}' is expected to take {seconds} s")
        require(member.verb.strip(), f"'{member.name}' has no verb")
