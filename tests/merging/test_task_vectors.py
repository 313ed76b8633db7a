"""Merged task vectors of whole models: what is looked at together, what is tied, counted, read, and rounded once."""

import weakref
from collections import UserDict
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.merging.arithmetic import average
from harness.merging.sparsify import drop, magprune_probabilities, trim, uniform_draws
from harness.merging.task_vectors import TaskVectors, apply_task_vector, merge_task_vectors, trimming
from harness.merging.ties import DIALECTS, MERGEKIT, PAPER, PEFT, STOCKPOT, SUM
from harness.models.weights import LazyWeights, save_weights
from harness.types import NotApplicable
from tests.examples import examples
from tests.merging import by_hand
from tests.merging.test_arithmetic import FEW, SEEDS, assert_rounded, assert_same, exact, models

SOME = examples(60)
DENSITIES = st.sampled_from([1e-9, 0.2, 0.25, 0.5, 0.9, 1.0])
NAMES = ("vector", "matrix", "scalar")
GRID = 16
"""Entries are small multiples of 1/16, so that all sums are exact and the reading by hand is compared bit for bit."""


def as_model(values):
    """A flat list as a model of a matrix, a vector and a scalar, with a counter among them."""
    flat = torch.tensor(values, dtype=torch.float32)
    rest = len(values) - 1
    return {
        "vector": flat[: rest % 2],
        "steps": torch.tensor(3),
        "matrix": flat[rest % 2 : rest].reshape(2, -1) if rest > 1 else flat[:0],
        "scalar": flat[rest],
    }


def flat(model):
    return torch.cat([model[name].flatten() for name in NAMES]).tolist()


@st.composite
def pools(draw):
    """A base and task vectors of one length, with many equal magnitudes, zeros and cancelling entries."""
    length = draw(st.integers(1, 12))
    vectors = st.lists(st.integers(-4, 4), min_size=length, max_size=length)
    return draw(vectors), draw(st.lists(vectors, min_size=1, max_size=5))


def models_of(base, taus):
    start = as_model([b / GRID for b in base])
    return start, [as_model([(b + t) / GRID for b, t in zip(base, tau, strict=True)]) for tau in taus]


def ties(start, tuned, density, dialect=STOCKPOT):
    vectors = TaskVectors(start, tuned)
    return merge_task_vectors(vectors, trimming(vectors, density, dialect), dialect).tensors


@SOME
@given(pools(), DENSITIES)
def test_the_largest_entries_of_the_model_are_kept_whatever_tensor_they_are_in(pool, density):
    start, tuned = models_of(*pool)
    found = ties(start, tuned, density)
    assert {name: t.shape for name, t in found.items()} == {name: start[name].shape for name in NAMES}
    assert all(tensor.dtype == torch.float32 for tensor in found.values())
    expected = by_hand.ties([[t / GRID for t in tau] for tau in pool[1]], density)
    assert flat(found) == torch.tensor(expected, dtype=torch.float64).float().tolist()


@SOME
@given(pools(), DENSITIES)
def test_or_those_of_each_tensor(pool, density):
    """The majority sign is then still the model's."""
    start, tuned = models_of(*pool)
    taus = [{name: (model[name] - start[name]).flatten().tolist() for name in NAMES} for model in tuned]
    trimmed = [[v for name in NAMES if tau[name] for v in by_hand.trimmed(tau[name], density)] for tau in taus]
    expected = by_hand.merged(trimmed, without_majority=1)
    found = ties(start, tuned, density, STOCKPOT.changed(scope="tensor"))
    assert flat(found) == torch.tensor(expected, dtype=torch.float64).float().tolist()


@SOME
@given(pools(), DENSITIES, st.sampled_from(["kthvalue", "exactly", "at_least_one"]))
def test_tensors_are_trimmed_together_as_one_tensor_that_holds_them_all(pool, density, keep):
    vectors = TaskVectors(*models_of(*pool))
    sparsify = trimming(vectors, density, STOCKPOT.changed(keep=keep))
    for member in range(len(vectors.models)):
        found = [sparsify(tensor, member, name) for name, tensor in vectors.of(member)]
        whole = torch.cat([tensor.flatten() for _, tensor in vectors.of(member)])
        assert torch.cat([tensor.flatten() for tensor in found]).tolist() == trim(whole, density, keep).tolist()


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_nothing_trimmed_and_equal_signs_give_the_mean_of_the_models(dialect):
    start, tuned = models_of([5, -3, 2, 0, 1], [[1, -2, 3, 4, -1], [2, -1, 1, 1, -4], [4, -4, 2, 3, -2]])
    found = apply_task_vector(start, ties(start, tuned, 1.0, dialect), 1.0)
    torch.testing.assert_close(torch.tensor(flat(found)), torch.tensor(flat(average(tuned))))


def random_models(count, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"conv.weight": (3, 2, 2, 2), "conv.bias": (3,), "fc.weight": (4, 5), "scale": ()}
    return [{n: torch.randn(s, generator=generator).to(dtype) for n, s in shapes.items()} for _ in range(count)]


def dare(tensor, member, name):
    return drop(tensor, 0.4, uniform_draws(tensor.shape, 0, f"m{member}", name))


def della(tensor, member, name):
    likely = magprune_probabilities(tensor, 0.4, 0.2)
    return drop(tensor, likely, uniform_draws(tensor.shape, 0, f"m{member}", name), "l1")


@pytest.mark.parametrize("sparsify", [dare, della])
@pytest.mark.parametrize("dialect", [SUM, MERGEKIT, PAPER.changed(scope="tensor")], ids=lambda d: d.name)
def test_the_order_of_the_tensors_does_not_matter(dialect, sparsify):
    models = random_models(4)
    backwards = [dict(reversed(model.items())) for model in models]
    expected = merge_task_vectors(TaskVectors(models[0], models[1:]), sparsify, dialect).tensors
    found = merge_task_vectors(TaskVectors(backwards[0], backwards[1:]), sparsify, dialect).tensors
    assert list(found) == list(reversed(expected))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    alone = [{"fc.weight": model["fc.weight"]} for model in models]
    if dialect.zero_sum == "positive" or dialect.elect == "none":  # else the majority sign is the model's
        found = merge_task_vectors(TaskVectors(alone[0], alone[1:]), sparsify, dialect).tensors
        assert torch.equal(found["fc.weight"], expected["fc.weight"])


def test_the_share_of_entries_whose_signs_conflict_over_the_model_and_by_layer():
    start = {"conv.weight": torch.zeros(4), "conv.bias": torch.zeros(1), "head.weight": torch.zeros(5)}
    one = {"conv.weight": torch.tensor([1.0, -1, 0, 2]), "conv.bias": torch.ones(1), "head.weight": -torch.ones(5)}
    two = {"conv.weight": torch.tensor([-1.0, -1, 1, -2]), "conv.bias": -torch.ones(1), "head.weight": -torch.ones(5)}
    for dialect in (STOCKPOT, MERGEKIT):
        found = merge_task_vectors(TaskVectors(start, [one, two]), lambda t, member, name: t, dialect).sign_conflict
        assert found == {"model": 0.3, "layers": {"conv": 0.6, "head": 0.0}}
    vectors = TaskVectors(start, [one, two])
    trimmed = merge_task_vectors(vectors, trimming(vectors, 0.1, STOCKPOT), STOCKPOT).sign_conflict
    assert trimmed["model"] == 0.1  # the one largest entry of each is left: 2 against -2


def test_weights_that_have_no_meaning_are_refused_before_any_arithmetic():
    def never(tensor, member, name):
        raise AssertionError("it was made sparse")

    start, *tuned = random_models(3)
    with pytest.raises(NotApplicable, match="1 weights are given for 2 members"):
        merge_task_vectors(TaskVectors(start, tuned), never, MERGEKIT, [1.0])


@pytest.mark.parametrize("dialect", [STOCKPOT, PEFT], ids=lambda d: d.name)
def test_models_of_nothing_have_no_task_vector(dialect):
    found = merge_task_vectors(TaskVectors({"steps": torch.tensor(1)}, [{"steps": torch.tensor(2)}]), dare, dialect)
    assert found.tensors == {}
    assert found.sign_conflict == {"model": 0.0, "layers": {}}
    empty = {"w": torch.zeros(0, 3)}
    assert ties(empty, [empty], 0.5, dialect)["w"].shape == (0, 3)


def test_scales_walk_along_the_task_vector_and_counters_stay_the_bases():
    start, tuned = models_of([1, 2, 3, 4], [[4, 0, -2, 2], [2, 1, 0, 4]])
    vector = ties(start, tuned, 1.0)
    for scale in (0.0, 0.5, 1.0, -2.0):
        found = apply_task_vector(start, vector, scale)
        assert list(found) == list(start)
        assert flat(found) == [b + scale * t for b, t in zip(flat(start), flat(vector), strict=True)]
        assert found["steps"] == 3
        assert found["steps"].data_ptr() != start["steps"].data_ptr()


def test_half_precision_is_merged_wide_and_rounded_once():
    generator = torch.Generator().manual_seed(1)
    base = {"w": torch.randn(500, generator=generator).bfloat16()}
    tuned = [{"w": (base["w"] + 0.05 * torch.randn(500, generator=generator)).bfloat16()} for _ in range(4)]
    taus = [(m["w"].double() - base["w"].double()).tolist() for m in tuned]
    exact = base["w"].double() + torch.tensor(by_hand.ties(taus, 0.5), dtype=torch.float64)
    found = apply_task_vector(base, ties(base, tuned, 0.5), 1.0)["w"]
    assert found.dtype == torch.bfloat16
    assert ((found.double() - exact).abs() <= 1.001 * 2**-8 * exact.abs()).all()  # half a unit in the last place


def test_tied_weights_count_once_among_the_largest_and_stay_tied():
    """Counted twice, the two large tied entries would fill all four places and the untied ones would be lost."""

    def tied(large, small):
        shared = torch.tensor([large, large])
        return {"embedding": shared, "body": torch.tensor([small, small, 0.5, 0.5, 0.5, 0.5]), "head": shared}

    vector = ties(tied(0.0, 0.5), [tied(9.0, 2.0)], 0.5)
    assert {name: tensor.tolist() for name, tensor in vector.items()} == {
        "embedding": [9.0, 9.0],
        "body": [1.5, 1.5, 0.0, 0.0, 0.0, 0.0],
    }
    found = apply_task_vector(tied(0.0, 0.5), vector, 1.0)
    assert found["body"].tolist() == [2.0, 2.0, 0.5, 0.5, 0.5, 0.5]
    found["head"][0] = 7.0
    assert found["embedding"].tolist() == [7.0, 9.0]


def test_weights_on_disk_merge_as_those_in_memory(tmp_path):
    start, tuned = models_of([1, 2, 3, 4, 0], [[4, 0, -2, 2, 1], [2, 1, 0, -4, 1], [-1, 1, 1, 1, 3]])
    for name, model in zip("012b", [*tuned, start], strict=True):
        save_weights(model, tmp_path / name)
    lazy = [LazyWeights(tmp_path / name) for name in "b012"]
    found, expected = ties(lazy[0], lazy[1:], 1.0), ties(start, tuned, 1.0)
    assert flat(found) == flat(expected)
    merged = apply_task_vector(lazy[0], found, 0.5)
    assert flat(merged) == flat(apply_task_vector(start, expected, 0.5))


# Sums of task vectors: task arithmetic.


def added(base, tuned, coefficients, scale):
    """``theta_0 + scale * sum_k c_k tau_k``."""
    total = merge_task_vectors(TaskVectors(base, tuned), lambda tensor, member, name: tensor, SUM, coefficients)
    return apply_task_vector(base, total.tensors, scale)


@FEW
@given(SEEDS, st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=5), st.floats(-1, 1, width=32))
def test_the_task_vector_sum_is_its_formula(seed, coefficients, scale):
    base, *tuned = members = models(seed, len(coefficients) + 1)

    def formula(tensors):
        start, *others = tensors
        return start + scale * sum(c * (t - start) for c, t in zip(coefficients, others, strict=True))

    found = added(base, tuned, coefficients, scale)
    assert_rounded(found, exact(members, formula), members, tolerance=1e-5)


@FEW
@given(SEEDS, st.floats(-3, 3, width=32))
def test_scale_zero_is_the_base_bit_for_bit(seed, weight):
    base, one, other = models(seed, 3)
    assert_same(added(base, [one, other], [weight, -1.0], 0.0), base)


@FEW
@given(SEEDS, st.sampled_from([0.25, 1.0, 2.0]), st.floats(-3, 3, width=32))
def test_opposite_coefficients_of_one_model_are_the_base_bit_for_bit(seed, weight, scale):
    base, one = models(seed, 2)
    assert_same(added(base, [one, one], [weight, -weight], scale), base)


@FEW
@given(SEEDS, st.floats(-2, 2, width=32))
def test_a_task_vector_added_and_then_taken_away_leaves_the_base(seed, weight):
    base, tuned = members = models(seed, 2)
    there = added(base, [tuned], [weight], 1.0)
    tau = added(there, [{n: there[n] + tuned[n] - base[n] for n in there}], [-weight], 1.0)
    assert_rounded(tau, exact([base], lambda t: t[0]), [*members, there], tolerance=1e-5)


@FEW
@given(SEEDS)
def test_one_task_at_scale_one_is_the_fine_tune(seed):
    base, tuned = members = models(seed, 2)
    assert_rounded(added(base, [tuned], [1.0], 1.0), exact([tuned], lambda t: t[0]), members)


@FEW
@given(SEEDS, st.integers(1, 6))
def test_all_tasks_at_scale_one_over_n_are_the_uniform_average(seed, count):
    base, *tuned = members = models(seed, count + 1)
    found = added(base, tuned, [1.0] * count, 1 / count)
    assert_rounded(found, exact(tuned, lambda t: np.mean(t, axis=0)), members)


class Counted(UserDict):
    """Weights whose tensors are copies, of which it is known how many are alive."""

    alive: ClassVar[int] = 0
    most: ClassVar[int] = 0

    def __getitem__(self, name):
        tensor = super().__getitem__(name).clone()
        Counted.alive += 1
        Counted.most = max(Counted.most, Counted.alive)
        weakref.finalize(tensor, Counted._gone)
        return tensor

    @staticmethod
    def _gone():
        Counted.alive -= 1


@pytest.mark.parametrize("dialect", [STOCKPOT, PAPER, MERGEKIT], ids=lambda d: d.name)
def test_few_tensors_are_held_at_a_time_also_where_the_whole_model_decides(dialect):
    generator = torch.Generator().manual_seed(3)
    models = [{f"layer{k}": torch.randn(50, generator=generator) for k in range(40)} for _ in range(5)]
    expected = ties(models[0], models[1:], 0.3, dialect)
    Counted.alive = Counted.most = 0
    found = ties(Counted(models[0]), [Counted(model) for model in models[1:]], 0.3, dialect)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert Counted.most <= 4
