"""Models of other precisions are merged in the widest, in any order; models of one precision stay as they are."""

import itertools

import pytest
import torch

from harness.merging.arithmetic import average
from harness.models.causal_lm import tiny_llama
from harness.models.precision import with_same_precision
from harness.models.weights import load_module
from harness.pools.folders import HfPool, plan_folders
from harness.pools.pool import load_pool
from harness.store import Store


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("precision")
    for seed, dtype in enumerate((torch.bfloat16, torch.float32, torch.bfloat16)):
        torch.manual_seed(seed)
        tiny_llama(vocab=16, hidden=8, layers=1, heads=2).to(dtype).save_pretrained(folder / str(seed))
    return folder


def pool(folders, *members, base=None):
    recipe = HfPool(base=str(folders / base) if base else None, members=[str(folders / name) for name in members])
    return load_pool(plan_folders("main", recipe), Store(folders))


def test_the_mean_of_two_precisions_is_in_the_wider_one_in_either_order(folders):
    means = []
    for names in itertools.permutations("01"):
        alike = with_same_precision(pool(folders, *names), [0, 1])
        means.append(average([member.weights for member in alike.members]))
    for name, tensor in means[0].items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, means[1][name], rtol=1e-6, atol=1e-7)


def test_members_hold_what_they_held(folders):
    before = pool(folders, "1", "2", base="0")
    after = with_same_precision(before, [0, 1])
    for one, other in zip((before.base, *before.members), (after.base, *after.members), strict=True):
        assert list(one.weights) == list(other.weights)
        assert all(torch.equal(one.weights[name].float(), other.weights[name]) for name in one.weights)
        states = load_module(one).state_dict(), load_module(other).state_dict()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_pool_of_one_precision_is_left_alone_and_so_is_one_whose_used_members_have_one(folders):
    for alike, used in ((pool(folders, "0", "2"), [0, 1]), (pool(folders, "0", "1", "2"), [0, 2])):
        assert with_same_precision(alike, used) is alike
