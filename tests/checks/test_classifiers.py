"""The laws of kinds and sources on a user's own texts and images, and on classifiers in folders."""

import pytest

from harness.checks import laws
from harness.checks.sources import TriedPool
from harness.checks.tasks import tried
from harness.registry import KINDS, SOURCES
from tests.models.classifier_folders import TEXTS
from tests.publish.classifier_runs import write_data, write_models

KIND_LAWS = {law.__name__: law for law in laws("kind")}
SOURCE_LAWS = {law.__name__: law for law in laws("source")}
FILES = {
    "texts": {"texts": {split: f"{split}.csv" for split in ("train", "heldout", "test")}},
    "image_files": {"images": {split: f"{split}.parquet" for split in ("train", "heldout", "test")}},
}
FAMILIES = {"texts": ("distilbert", "llama"), "image_files": ("resnet",)}
POOLS = {
    "folders": ("hf", {"members": ["m0", "m1"]}),
    "folders of one base": ("hf", {"base": "base", "members": ["m0", "m1"]}),
    "fine-tunes": ("train", {"base": "base", "start": "shared_base", "members": 2, "epochs": 1}),
    "fine-tunes of a base that is tuned first":
        ("train", {"base": "base", "start": "shared_base", "base_epochs": 1, "members": 2, "epochs": 1}),
    "checkpoints": ("train", {"base": "base", "start": "shared_base", "epochs": 2, "checkpoints": 2}),
    "heads of their own": ("train", {"base": "base", "start": "independent", "members": 2, "epochs": 1}),
    "resamples": ("train", {"base": "base", "start": "independent", "members": 2, "epochs": 1, "bootstrap": True}),
}  # fmt: skip


@pytest.fixture(scope="module", params=[(kind, family) for kind, families in FAMILIES.items() for family in families],
                ids=lambda each: each[1])  # fmt: skip
def place(request, tmp_path_factory):
    kind, family = request.param
    folder = tmp_path_factory.mktemp(family)
    write_data(folder)
    write_models(folder, family)
    return kind, folder


@pytest.fixture(scope="module")
def task(place):
    kind, folder = place
    return tried(FILES[kind], folder, pool={"hf": {"members": ["m0", "m1"]}})


@pytest.mark.parametrize("law", KIND_LAWS.values(), ids=KIND_LAWS)
def test_kind(place, task, law):
    law(KINDS.get(place[0]), task)


@pytest.fixture(scope="module", params=POOLS)
def pool(request, place, task):
    source, spec = POOLS[request.param]
    return TriedPool(SOURCES.get(source), spec, task.task, place[1])


@pytest.mark.parametrize("law", SOURCE_LAWS.values(), ids=SOURCE_LAWS)
def test_source(pool, law):
    law(pool.source, pool)


def test_starts_of_one_body_are_one_start_and_heads_of_their_own_are_told(place, task):
    plans = {name: TriedPool(SOURCES.get(of), spec, task.task, place[1]).plan() for name, (of, spec) in POOLS.items()}
    for name in ("fine-tunes", "heads of their own", "resamples"):
        assert len({member.start for member in plans[name].members}) == 1, name
        assert len({member.base.digests for member in plans[name].members}) == (1 if name == "fine-tunes" else 2)
    assert len({member.start for member in plans["folders"].members}) == 2
    assert TEXTS
