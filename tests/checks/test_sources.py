"""The laws of sources of members: ours keep them, and a source that breaks one is caught by it."""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from harness.checks import BrokenLaw, check_source, laws
from harness.checks.sources import TriedPool
from harness.checks.tasks import tried
from harness.keys import Key
from harness.models.architectures import build
from harness.models.weights import LazyWeights, save_network, save_weights
from harness.registry import KINDS, SOURCES
from harness.types import Architecture
from tests.checks.planted_kind import Planted
from tests.checks.planted_source import Plan, Source
from tests.pools import planted_module, planted_predictions

LAWS = {law.__name__: law for law in laws("source")}
SHARED = {
    "start": "shared_base", "epochs": 1, "base_epochs": 1, "examples": 40, "options": {"hidden": 6, "width": 2},
}  # fmt: skip
ALONE = {"start": "independent", "members": 2, "epochs": 1, "options": {"hidden": 6}}
TRAINED = {
    "fine-tunes": {**SHARED, "members": 2},
    "checkpoints": {**SHARED, "epochs": 2, "checkpoints": 2},
    "architectures": {**ALONE, "architecture": ["small_cnn", "mlp"], "examples": 40},
    "resamples": {**ALONE, "bootstrap": True},
    "views": {**SHARED, "members": 2, "vary": {"data": ["inverted", "labels_0_4"]}},
}


FOLDERS = {"folders": {"members": ["one", "two"]}, "folders of one base": {"base": "base", "members": ["one", "two"]}}
PREDICTIONS = {"predictions": planted_predictions.POOL["predictions"]}
MODULES = {"modules": {**planted_module.SPEC, "base": None}, "modules of one base": planted_module.SPEC}
SOURCES_OF = (("train", TRAINED), ("hf", FOLDERS), ("predictions", PREDICTIONS), ("module", MODULES))
POOLS = {name: (of, spec) for of, specs in SOURCES_OF for name, spec in specs.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three networks in folders, and three of a user's."""
    place = tmp_path_factory.mktemp("models")
    architecture = Architecture("mlp", (("classes", 10), ("hidden", 6), ("side", 8)))
    for seed, name in enumerate(("base", "one", "two")):
        torch.manual_seed(seed)
        (place / name).mkdir()
        save_network(architecture, build(architecture), place / name)
    planted_module.write_pool(place)
    return planted_predictions.write_pool(place)


@pytest.fixture(scope="module", params=POOLS)
def pool(request, folder):
    source, spec = POOLS[request.param]
    task = planted_predictions.TABLE if source == "predictions" else "digits"
    return TriedPool(SOURCES.get(source), spec, tried(task, folder).task, folder)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_source(pool, law):
    law(pool.source, pool)


def test_every_source_is_checked():
    assert {source for source, _ in POOLS.values()} == set(SOURCES.all())


@dataclass(frozen=True)
class OtherDigest(Plan):
    def member(self, store, position=-1, name=None):
        return replace(super().member(store, position, name), digest="another")


@dataclass(frozen=True)
class Stored(Plan):
    def keys(self):
        return (Key.of("planted", code=__name__, identity=self.identities),)

    def prepare(self, task, store, device):
        if not store.has(self.keys()[0]):
            self.write(store)

    def write(self, store):
        with store.write(self.keys()[0]) as folder:
            save_weights(super().weights(store, 0), folder / "weights.safetensors")

    def weights(self, store, position):
        return LazyWeights(store.path(self.keys()[0]) / "weights.safetensors")


@dataclass(frozen=True)
class NeverStored(Stored):
    def prepare(self, task, store, device):
        pass

    def weights(self, store, position):
        return Plan.weights(self, store, position)


@dataclass(frozen=True)
class StoredAgain(Stored):
    def prepare(self, task, store, device):
        store.remove(self.keys()[0])
        self.write(store)


@dataclass(frozen=True)
class DrawsGlobally(Plan):
    def weights(self, store, position):
        return {name: tensor + torch.rand(1) for name, tensor in super().weights(store, position).items()}


@dataclass(frozen=True)
class IgnoresItsSeed(Plan):
    def weights(self, store, position):
        return replace(self, seed=0).moved(store, position)

    def moved(self, store, position):
        return Plan.weights(self, store, position)


@dataclass(frozen=True)
class HidesItsSeed(Plan):
    @property
    def identities(self):
        return (self.name,)


@dataclass(frozen=True)
class Broken(Plan):
    def weights(self, store, position):
        return {name: tensor * float("nan") for name, tensor in super().weights(store, position).items()}


@dataclass(frozen=True)
class Undescribed(Plan):
    def describe(self):
        return {"how": ""}


class WrongSize(Source):
    def size(self, spec):
        return spec.members + 1


class OneName(Source):
    def plan(self, *given):
        found = super().plan(*given)
        return replace(found, members=tuple(replace(member, name="m") for member in found.members))


count = itertools.count()


class PlansAnew(Source):
    def plan(self, name, spec, task, seed):
        return super().plan(name, spec, task, next(count))


def of(plan):
    return type(plan.__name__, (Source,), {"plans": plan})


WRONG = [
    (WrongSize, "a_pool_has_the_size_that_is_said"),
    (OneName, "a_pool_has_the_size_that_is_said"),
    (PlansAnew, "planned_twice_it_is_the_same"),
    (of(OtherDigest), "digests_are_known_beforehand"),
    (of(NeverStored), "what_is_prepared_is_there"),
    (of(StoredAgain), "what_is_prepared_is_there"),
    (of(DrawsGlobally), "same_seed_same_members"),
    (of(IgnoresItsSeed), "another_digest_is_another_member"),
    (of(HidesItsSeed), "another_digest_is_another_member"),
    (of(Broken), "members_can_be_run"),
    (of(DrawsGlobally), "global_random_state_is_unchanged"),
    (of(Undescribed), "members_are_described"),
]


@pytest.fixture
def declare(monkeypatch):
    """Registers a source, and the kind of task that its members are for, for the length of a test."""
    monkeypatch.setattr(KINDS, "_known", {**KINDS.all(), "planted": Planted()})

    def register(declared):
        monkeypatch.setattr(SOURCES, "_known", {**SOURCES.all(), "planted": declared()})
        return TriedPool(SOURCES.get("planted"), {}, tried("planted").task, Path())

    return register


@pytest.mark.parametrize(("wrong", "law"), WRONG, ids=lambda given: getattr(given, "__name__", given))
def test_a_wrong_source_is_caught(wrong, law, declare):
    pool = declare(wrong)
    with pytest.raises(BrokenLaw, match="source 'planted'") as caught:
        LAWS[law](pool.source, pool)
    assert caught.value.law == law
    with pytest.raises(BrokenLaw):
        check_source("planted", task="planted")


def test_every_law_of_sources_catches_something():
    assert {law for _, law in WRONG} == set(LAWS)


@pytest.mark.parametrize("right", [Source, of(Stored)])
def test_a_right_source_passes(right, declare):
    declare(right)
    check_source("planted", task="planted")
