"""Averages and sums against float64 numpy, and what they must keep bit for bit."""

import weakref
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.merging.arithmetic import average, floating_names, streamed, weighted_sum
from harness.models.weights import LazyWeights, save_weights
from tests.examples import examples

SHAPES = {"conv": (3, 2, 2, 2), "bias": (3,), "scalar": (), "empty": (0, 4), "linear": (4, 5)}
SEEDS = st.integers(0, 2**32 - 1)
FEW = examples(25)


def models(seed, count, dtype=torch.float32):
    """Models whose tensors have very different scales, and one counter each."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for k in range(count):
        weights = {
            name: (torch.randn(shape, generator=generator, dtype=torch.float64) * 10.0 ** (i - 2)).to(dtype)
            for i, (name, shape) in enumerate(SHAPES.items())
        }
        found.append({**weights, "counter": torch.tensor(7 + k)})
    return found


def exact(members, combine):
    """The combination of every floating-point tensor in float64."""
    return {name: combine([m[name].double().numpy() for m in members]) for name in SHAPES}


def assert_rounded(found, expected, members, tolerance=2e-6):
    """Equal but for float32 rounding, in units of the largest entry that took part in each place."""
    for name, values in expected.items():
        largest = np.max([np.abs(m[name].double().numpy()) for m in members], axis=0, initial=0.0)
        assert found[name].dtype == members[0][name].dtype
        assert found[name].shape == members[0][name].shape
        assert (np.abs(found[name].double().numpy() - values) <= tolerance * len(members) * (largest + 1e-30)).all()


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


@FEW
@given(SEEDS, st.integers(1, 9))
def test_the_average_is_the_mean(seed, count):
    members = models(seed, count)
    assert_rounded(average(members), exact(members, lambda t: np.mean(t, axis=0)), members)


@FEW
@given(SEEDS, st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=6))
def test_the_weighted_sum_is_the_weighted_sum(seed, coefficients):
    members = models(seed, len(coefficients))
    expected = exact(members, lambda t: np.tensordot(coefficients, np.stack(t), axes=1))
    assert_rounded(weighted_sum(members, coefficients), expected, members, tolerance=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_copies_of_one_model_average_to_it_bit_for_bit(count, dtype):
    (model,) = models(1, 1, dtype)
    assert_same(average([model] * count), model)


@FEW
@given(SEEDS, st.permutations(range(5)))
def test_the_order_of_the_models_is_lost_in_rounding(seed, order):
    members = models(seed, 5)
    expected = {name: tensor.double().numpy() for name, tensor in average(members).items() if name in SHAPES}
    assert_rounded(average([members[i] for i in order]), expected, members)


def test_a_coefficient_of_one_alone_gives_that_model_bit_for_bit_and_the_others_are_not_touched():
    class Untouchable(Mapping):
        def __getitem__(self, name):
            raise AssertionError(f"'{name}' was read")

        __iter__ = __len__ = None

    first, second = models(2, 2)
    assert_same(weighted_sum([first, Untouchable()], [1.0, 0.0]), first)
    assert_same(weighted_sum([Untouchable(), second], [0.0, 1.0]), second)


def test_coefficients_of_zero_give_zero():
    members = models(3, 2)
    found = weighted_sum(members, [0.0, 0.0])
    assert all(not found[name].any() for name in SHAPES)
    assert found["counter"] == members[0]["counter"]


def test_coefficients_are_one_for_each_model():
    members = models(3, 3)
    for wrong in ([1.0], [1.0] * 4):
        with pytest.raises(ValueError, match="coefficients"):
            weighted_sum(members, wrong)


def test_half_precision_is_summed_wide_and_rounded_once():
    """Eight near copies in bfloat16: the result is the nearest bfloat16 to the exact mean, which no sum in bfloat16 is.

    Errors are in units of the spread between the members, which is what an average is about.
    """
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(20_000, generator=generator)
    members = [{"w": (centre + 0.01 * torch.randn(20_000, generator=generator)).bfloat16()} for _ in range(8)]
    stacked = torch.stack([m["w"] for m in members]).double()
    mean, spread = stacked.mean(dim=0), stacked.std(dim=0).mean()
    found = average(members)["w"]
    in_half = sum((m["w"] for m in members[1:]), start=members[0]["w"]) / 8
    assert in_half.dtype == found.dtype == torch.bfloat16
    error, error_in_half = ((t.double() - mean).abs().mean() / spread for t in (found, in_half))
    assert ((found.double() - mean).abs() <= 1.001 * 2**-8 * mean.abs()).all()  # half a unit in the last place
    assert error < 0.6 * error_in_half
    assert torch.equal(weighted_sum(members, [1 / 8] * 8)["w"], found)
    assert (found == mean.bfloat16()).double().mean() > 0.999


def test_what_is_combined_is_wide_and_what_comes_back_is_not():
    seen = []

    def first(tensors):
        seen.append({t.dtype for t in tensors})
        return tensors[0]

    for dtype, wide in ((torch.float16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)):
        members = models(4, 2, dtype)
        assert_same(streamed(members, first), members[0])
        assert seen.pop() == {wide}


def test_models_of_mixed_precision_take_the_first_ones():
    members = [models(5, 1, torch.float16)[0], models(6, 1)[0]]
    assert average(members)["linear"].dtype == torch.float16
    assert average(members[::-1])["linear"].dtype == torch.float32


@pytest.mark.parametrize(
    "merge",
    [average, lambda m: weighted_sum(m, [0.5, 0.5])],
    ids=["average", "weighted_sum"],
)
def test_counters_are_copied_and_nothing_is_shared_with_the_models(merge):
    members = models(7, 2)
    members[0]["mask"], members[1]["mask"] = torch.tensor([True, False]), torch.tensor([False, True])
    before = [{name: tensor.clone() for name, tensor in m.items()} for m in members]
    found = merge(members)
    assert found["counter"] == 7
    assert found["mask"].tolist() == [True, False]
    for tensor in found.values():
        tensor.zero_()
    for member, copy in zip(members, before, strict=True):
        assert_same(member, copy)


def test_one_model_comes_back_as_a_copy():
    (model,) = models(8, 1)
    for found in (average([model]), weighted_sum([model], [1.0])):
        assert_same(found, model)
        assert all(found[n].data_ptr() != model[n].data_ptr() for n in model if model[n].numel())


def test_tied_weights_are_combined_once_and_stay_tied():
    def tied(k):
        shared = torch.full((2, 3), float(k))
        return {"embedding": shared, "other": torch.full((2, 3), 10.0 * k), "head": shared, "again": shared}

    members = [tied(1), tied(2)]
    calls = []

    def mean(tensors):
        calls.append(tensors[0].clone())
        return sum(tensors) / len(tensors)

    found = streamed(members, mean)
    assert [float(t[0, 0]) for t in calls] == [1.0, 10.0]
    assert list(found) == list(members[0])
    found["embedding"][0, 0] = 99.0
    assert found["head"][0, 0] == found["again"][0, 0] == 99.0
    assert found["head"][1, 1] == 1.5
    assert (found["other"] == 15.0).all()
    assert list(floating_names(members[0])) == ["embedding", "other"]


def test_views_that_only_begin_at_the_same_place_are_not_tied():
    def views(seed):
        square = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed))
        return {"whole": square, "transposed": square.T, "row": square[0], "column": square[:, 0]}

    members = [views(0), views(1)]
    found = average(members)
    for name in members[0]:
        torch.testing.assert_close(found[name], (members[0][name] + members[1][name]) / 2)
    assert list(floating_names(members[0])) == list(members[0])


def test_equal_weights_that_are_not_tied_stay_apart():
    found = average([{"a": torch.ones(2), "b": torch.ones(2)}] * 2)
    assert found["a"].data_ptr() != found["b"].data_ptr()


class Watched(Mapping):
    """Lazy weights that count their reads and how many of their tensors are alive."""

    def __init__(self, weights):
        self.weights, self.reads, self.given, self.most_alive = weights, Counter(), [], 0

    def __getitem__(self, name):
        self.reads[name] += 1
        tensor = self.weights[name]
        self.given.append(weakref.ref(tensor))
        self.most_alive = max(self.most_alive, sum(ref() is not None for ref in self.given))
        return tensor

    def __iter__(self):
        return iter(self.weights)

    def __len__(self):
        return len(self.weights)


MERGES = {
    "average": average,
    "weighted_sum": lambda m: weighted_sum(m, [0.2, 0.3, 0.5]),
}


@pytest.mark.parametrize("merge", MERGES.values(), ids=MERGES)
def test_weights_on_disk_merge_as_those_in_memory_each_read_once_and_let_go(merge, tmp_path):
    members = models(9, 3)
    for k, member in enumerate(members):
        save_weights(member, tmp_path / f"{k}.safetensors")
    lazy = [Watched(LazyWeights(tmp_path / f"{k}.safetensors")) for k in range(3)]
    found, expected = merge(lazy), merge(members)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert set(lazy[0].reads.values()) == {1}
    for other in lazy[1:]:
        assert other.reads == Counter(SHAPES.keys())  # the first one's counter is copied: theirs are not read
        assert other.most_alive == 1
    assert lazy[0].most_alive <= 2


def test_the_mean_of_two_means_of_two_is_the_mean_of_the_four():
    members = models(10, 4)
    halves = [average(members[:2]), average(members[2:])]
    assert_rounded(average(halves), exact(members, lambda t: np.mean(t, axis=0)), members)
