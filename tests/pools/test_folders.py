"""Pools of folders: what a plan of one says before it is read, and for which tasks it is refused."""

from types import SimpleNamespace

import pytest
import torch

from harness.errors import BadInput
from harness.models.architectures import build
from harness.models.causal_lm import tiny_llama
from harness.models.weights import save_network
from harness.pools.folders import HfPool, plan_folders, pool_of
from harness.pools.pool import base_digest, load_pool, member_digests
from harness.registry import SOURCES
from harness.store import Store
from harness.types import Architecture

MLP = Architecture("mlp", (("classes", 3), ("hidden", 4), ("side", 4)))


@pytest.fixture
def folders(tmp_path):
    """Two networks for images, and a language model stored in bfloat16, each in a folder named after it."""
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        (tmp_path / name).mkdir()
        save_network(MLP, build(MLP).eval(), tmp_path / name)
    tiny_llama(vocab=32, hidden=16, layers=1, heads=2).bfloat16().save_pretrained(tmp_path / "words")
    return tmp_path


def task(kind, **shape):
    return SimpleNamespace(name="t", test=SimpleNamespace(kind=kind), shape=shape)


def planned(folders, *members, base=None):
    paths = [str(folders / name) for name in members]
    return plan_folders("main", HfPool(base=str(folders / base) if base else None, members=paths))


def test_what_is_known_before_is_what_is_loaded(folders, tmp_path):
    plan = planned(folders, "two", base="one")
    pool = load_pool(plan, Store(tmp_path / "store"))
    assert [member.digest for member in pool.members] == list(member_digests(plan))
    assert pool.base.digest == base_digest(plan) == pool.base.start
    assert {member.start for member in pool.members} == {pool.base.digest}
    assert [member.architecture for member in (pool.base, *pool.members)] == [MLP, MLP]
    assert plan.kind == "fine_tunes"
    alone = planned(folders, "one", "two")
    assert alone.kind == "independent"
    assert base_digest(alone) is None
    assert len({member.start for member in load_pool(alone, Store(tmp_path)).members}) == 2
    assert member_digests(alone)[0] == base_digest(plan)  # one model, wherever it stands


@pytest.mark.parametrize(
    ("name", "kind", "shape", "words"),
    [
        ("one", "text", {}, "pool 'main' holds a network for images, which the task 't' is not for"),
        ("words", "images", {"side": 4}, "pool 'main' holds a language model, which the task 't' is not for"),
        ("one", "images", {"side": 8, "classes": 3},
         "the network has side 4, classes 3; the task 't' has side 8, classes 3"),
    ],
)  # fmt: skip
def test_a_model_for_another_task_is_refused_with_its_folder(folders, name, kind, shape, words):
    asked = pool_of(folders / name, None)
    with pytest.raises(BadInput) as caught:
        asked.plan("main", task(kind, **shape), 0)
    assert str(caught.value) == f"{folders / name}: {words}"


def test_a_model_for_the_task_is_planned(folders):
    assert len(pool_of(folders / "one", None).plan("main", task("images", side=4, classes=3), 0).members) == 1


def test_what_goes_along_with_a_language_model_lies_in_its_folder(folders):
    (words,), (network,) = planned(folders, "words").members, planned(folders, "one").members
    assert (words.folder, words.dtype) == (folders / "words", "bfloat16")
    assert (network.folder, network.dtype) == (None, "float32")


def test_a_base_is_taken_for_an_adapter_only(folders):
    (folders / "two" / "adapter_config.json").write_text("{}")
    assert pool_of(folders / "two", "base").spec.base == "base"
    assert pool_of(folders / "one", "base").spec.base is None


def test_the_tokenizer_is_the_bases_or_the_first_members():
    folders = SOURCES.get("hf")
    assert folders.tokenizer(HfPool(base="base", members=["a", "b"])) == "base"
    assert folders.tokenizer(HfPool(members=["a", "b"])) == "a"
