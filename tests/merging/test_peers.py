"""Equal to the installed mergekit and peft, and where they surprise, what they do."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.merging.arithmetic import weighted_sum
from harness.merging.sparsify import drop, magprune_probabilities, trim, trim_outliers, uniform_draws
from harness.merging.task_vectors import TaskVectors, apply_task_vector, merge_task_vectors
from harness.merging.ties import MERGEKIT, PAPER, PEFT, SUM, elect_signs
from tests.examples import examples
from tests.merging.peers import masks, merge_state_dicts, peers, peft

SOME = examples(50)
SHAPES = {"conv": (3, 2, 2, 2), "fc": (4, 5), "row": (1, 6), "bias": (7,), "one": (1,), "scale": ()}
TWO_OR_MORE = {"conv": (3, 2, 2, 2), "fc": (4, 5), "row": (1, 6), "bias": (7,)}
"""Shapes in which every row that mergekit's MAGPRUNE ranks has two entries or more."""
DENSITIES = st.sampled_from([0.0, 1e-6, 0.1, 0.2, 1 / 3, 0.5, 0.9, 1.0])
POSITIVE = [0.25, 0.5, 1.0, 2.0]
SIGNED = [-1.0, -0.5, 0.0, *POSITIVE]


# Pools and peers.


def entries(kind, shape, generator):
    """Task vectors [count, *shape] that are hard in one way each; all but ``real`` are multiples of 1/16."""
    if kind == "real":
        return torch.randn(shape, generator=generator)
    grid = torch.randint(-4, 5, shape, generator=generator) / 16
    if kind == "equal magnitudes":
        return torch.where(grid < 0, -1 / 16, 1 / 16)
    if kind == "mostly zero":
        return torch.where(torch.rand(shape, generator=generator) < 0.7, 0.0, grid)
    if kind == "cancelling":
        half = grid[: (len(grid) + 1) // 2]
        return torch.cat([half, -half])[: len(grid)]
    return torch.zeros(shape) if kind == "zero" else grid


KINDS = ("grid", "equal magnitudes", "mostly zero", "cancelling", "zero", "real")


@st.composite
def pools(draw, shapes=SHAPES, weights=POSITIVE, kinds=KINDS):
    """A base, tuned models, and a weight for each; sums of what is not ``real`` are exact in any order."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    count = draw(st.sampled_from([1, 2, 3, 4, 7, 12]))
    kind = draw(st.sampled_from(kinds))
    base = {n: torch.randint(-8, 9, shape, generator=generator) / 16 for n, shape in shapes.items()}
    taus = {n: entries(kind, (count, *shape), generator) for n, shape in shapes.items()}
    tuned = [{n: base[n] + taus[n][k] for n in shapes} for k in range(count)]
    return base, tuned, draw(st.lists(st.sampled_from(weights), min_size=count, max_size=count))


def draws_for(tensor, member, name):
    return uniform_draws(tensor.shape, 0, f"m{member}", name)


def mergekit(name, base, tuned, weights, **parameters):
    with peers(masks(base, range(len(tuned)), draws_for)):
        return merge_state_dicts([base, *tuned], name, base=0, parameters={"weight": weights, **parameters})


def by_peft(function, base, tuned, weights, *args, **options):
    """peft's functions merge the task vectors of one tensor."""
    with peers(masks(base, range(len(tuned)), draws_for)), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of density 1
        merged = {
            n: function([model[n] - base[n] for model in tuned], torch.tensor(weights), *args, **options) for n in base
        }
    return {n: base[n] + merged[n] for n in base}


def ours(sparsify, dialect, base, tuned, weights, scale=1.0):
    merged = merge_task_vectors(TaskVectors(base, tuned), sparsify, dialect, weights)
    return apply_task_vector(base, merged.tensors, scale)


def assert_equal(found, expected, decided=None):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        where = decided[name] if decided else torch.ones_like(tensor, dtype=torch.bool)
        torch.testing.assert_close(found[name][where], tensor[where], rtol=1e-6, atol=1e-6)


def decided_places(sparsify, base, tuned, weights):
    """Where no rounding can turn the elected sign: the sum of the entries is well away from 0, or none is left."""
    decided = {}
    for name, start in base.items():
        left = [weights[k] * sparsify(m[name] - start, k, name).double() for k, m in enumerate(tuned)]
        total, size = sum(left), sum(entry.abs() for entry in left)
        decided[name] = (total.abs() > 1e-5 * size) | (size == 0)
    return decided


# Plain sums.


@SOME
@given(pools())
def test_linear(pool):
    _, tuned, weights = pool
    found = weighted_sum(tuned, [w / sum(weights) for w in weights])
    assert_equal(found, merge_state_dicts(tuned, "linear", parameters={"weight": weights}))


@SOME
@given(pools(weights=SIGNED), st.sampled_from([1.0, 0.3, -0.5]))
def test_task_arithmetic(pool, scale):
    base, tuned, weights = pool
    expected = mergekit("task_arithmetic", base, tuned, weights, **{"lambda": scale})
    assert_equal(ours(lambda t, member, name: t, SUM, base, tuned, weights, scale), expected)


@SOME
@given(pools())
def test_task_arithmetic_that_is_normalised(pool):
    base, tuned, weights = pool
    expected = mergekit("task_arithmetic", base, tuned, weights, normalize=True)
    assert_equal(ours(lambda t, member, name: t, SUM.changed(divide="weights"), base, tuned, weights), expected)


# By magnitude.


def trimming(density, dialect):
    return lambda tensor, member, name: trim(tensor, density, dialect.keep)


@SOME
@given(pools(), DENSITIES, st.sampled_from([1.0, 0.7]))
def test_ties_of_mergekit(pool, density, scale):
    expected = mergekit("ties", *pool, density=density, **{"lambda": scale})
    assert_equal(ours(trimming(density, MERGEKIT), MERGEKIT, *pool, scale), expected)


@SOME
@given(pools(weights=SIGNED), DENSITIES)
def test_ties_of_mergekit_that_is_not_normalised_has_negative_weights_too(pool, density):
    expected = mergekit("ties", *pool, density=density, normalize=False)
    assert_equal(ours(trimming(density, MERGEKIT), MERGEKIT.changed(divide="none"), *pool), expected)


@SOME
@given(pools(weights=SIGNED), DENSITIES, st.sampled_from(["total", "frequency"]))
def test_ties_of_peft(pool, density, election):
    expected = by_peft(peft.ties, *pool, density, majority_sign_method=election)
    dialect = PEFT.changed(elect={"total": "sum", "frequency": "count"}[election])
    assert_equal(ours(trimming(density, PEFT), dialect, *pool), expected)


@SOME
@given(pools(weights=SIGNED), DENSITIES)
def test_magnitude_prune_of_peft(pool, density):
    expected = by_peft(peft.magnitude_prune, *pool, density)
    assert_equal(ours(trimming(density, PEFT), PEFT.changed(elect="none", divide="none"), *pool), expected)


@SOME
@given(pools(weights=SIGNED), DENSITIES, st.sampled_from([0.0, 0.01, 0.2, 0.9]), st.sampled_from(["", "_ties"]))
def test_breadcrumbs(pool, density, outliers, merge):
    expected = mergekit(f"breadcrumbs{merge}", *pool, density=density, gamma=outliers)
    dialect = MERGEKIT.changed(divide="none", elect=None if merge else "none")
    assert_equal(ours(lambda t, member, name: trim_outliers(t, density, outliers), dialect, *pool), expected)


# At random, with the same masks.


def dropping(density, rescale):
    return lambda tensor, member, name: drop(tensor, density, draws_for(tensor, member, name), rescale)


@SOME
@given(pools(weights=SIGNED), DENSITIES, st.booleans())
def test_dare_linear_of_mergekit(pool, density, rescale):
    expected = mergekit("dare_linear", *pool, density=density, rescale=rescale)
    assert_equal(ours(dropping(density, "l1" if rescale else "none"), SUM, *pool), expected)


@SOME
@given(pools(weights=SIGNED), DENSITIES, st.booleans())
def test_dare_ties_of_mergekit(pool, density, rescale):
    expected = mergekit("dare_ties", *pool, density=density, rescale=rescale)
    sparsify = dropping(density, "l1" if rescale else "none")
    found = ours(sparsify, MERGEKIT.changed(divide="none"), *pool)
    assert_equal(found, expected, decided_places(sparsify, *pool) if rescale else None)


PEFT_DENSITIES = DENSITIES.filter(bool)


@SOME
@given(pools(weights=SIGNED), PEFT_DENSITIES)
def test_dare_linear_of_peft(pool, density):
    dialect = PEFT.changed(elect="none", divide="none")
    assert_equal(ours(dropping(density, "inverse"), dialect, *pool), by_peft(peft.dare_linear, *pool, density))


@SOME
@given(pools(weights=SIGNED), PEFT_DENSITIES, st.sampled_from(["total", "frequency"]))
def test_dare_ties_of_peft(pool, density, election):
    expected = by_peft(peft.dare_ties, *pool, density, majority_sign_method=election)
    sparsify = dropping(density, "inverse")
    if election == "frequency":
        assert_equal(ours(sparsify, PEFT.changed(elect="count"), *pool), expected)
    else:
        base, tuned, _ = pool
        decided = decided_places(sparsify, base, tuned, [1.0] * len(tuned))  # weights have no say
        assert_equal(ours(sparsify, PEFT, *pool), expected, decided)


@SOME
@given(
    pools(TWO_OR_MORE),
    st.sampled_from([(0.5, 0.25), (0.3, 0.15), (0.9, 0.05), (1.0, 0.2)]),
    st.sampled_from(["della", "della_linear"]),
    st.booleans(),
)
def test_della(pool, chosen, name, rescale):
    density, epsilon = chosen

    def sparsify(tensor, member, name):
        likely = magprune_probabilities(tensor, density, epsilon, "second_axis") if density < 1 else 1.0
        return drop(tensor, likely, draws_for(tensor, member, name), "l1" if rescale else "none")

    expected = mergekit(name, *pool, density=density, epsilon=epsilon, rescale=rescale)
    if name == "della":
        assert_equal(ours(sparsify, MERGEKIT, *pool), expected, decided_places(sparsify, *pool) if rescale else None)
    else:
        assert_equal(ours(sparsify, SUM, *pool), expected)


# Where they surprise.


def one_weight(*deltas):
    return {"w": torch.zeros(1)}, [{"w": torch.tensor([float(delta)])} for delta in deltas]


def test_normalised_with_a_negative_weight_mergekit_adds_what_was_to_be_taken_away():
    base, tuned = one_weight(1.0)
    assert mergekit("ties", base, tuned, [-1.0])["w"] == 1.0
    assert mergekit("ties", base, tuned, [-1.0], normalize=False)["w"] == -1.0
    base, tuned = one_weight(1.0, -1.0)
    assert mergekit("ties", base, tuned, [0.5, -0.45])["w"].item() == pytest.approx(19, rel=1e-5)


def test_mergekits_elected_sign_depends_on_the_order_where_sums_cancel_but_for_rounding():
    base, tuned = one_weight(0.17, 0.82, -0.99)
    orders = ((0, 1, 2), (1, 2, 0))
    found = [float(mergekit("ties", base, [tuned[i] for i in order], [1.0] * 3)["w"]) for order in orders]
    assert found == pytest.approx([0.495, -0.99])
    column = torch.stack([model["w"] for model in tuned])
    assert [float(elect_signs(column[list(order)])) for order in orders] == [-1.0, -1.0]


def test_a_sum_of_zero_is_positive_for_mergekit_and_peft_and_the_models_majority_in_the_paper():
    base = {"w": torch.zeros(3)}
    tuned = [{"w": torch.tensor([2.0, -1.0, -1.0])}, {"w": torch.tensor([-2.0, -1.0, -1.0])}]
    assert mergekit("ties", base, tuned, [1.0, 1.0])["w"].tolist() == [2, -1, -1]
    assert by_peft(peft.ties, base, tuned, [1.0, 1.0], 1.0)["w"].tolist() == [2, -1, -1]
    assert ours(trimming(1.0, PAPER), PAPER, base, tuned, None)["w"].tolist() == [-2, -1, -1]


def test_of_a_small_tensor_mergekit_keeps_one_entry_peft_none_and_the_paper_one_more_than_asked():
    base, tuned = {"w": torch.zeros(4)}, [{"w": torch.tensor([1.0, 2.0, 3.0, 4.0])}]
    assert mergekit("ties", base, tuned, [1.0], density=0.2)["w"].tolist() == [0, 0, 0, 4]
    assert by_peft(peft.ties, base, tuned, [1.0], 0.2)["w"].tolist() == [0, 0, 0, 0]
    assert ours(trimming(0.5, PAPER), PAPER, base, tuned, None)["w"].tolist() == [0, 2, 3, 4]


def test_weights_decide_the_sign_in_mergekit_and_not_in_peft():
    base, tuned = one_weight(1.0, -2.0)
    assert mergekit("ties", base, tuned, [3.0, 1.0])["w"] == 1.0
    assert by_peft(peft.ties, base, tuned, [3.0, 1.0], 1.0)["w"] == -2.0
    base, tuned = one_weight(1.0, 2.0)  # and peft divides by how many there are, whatever their weights
    assert mergekit("ties", base, tuned, [0.5, 0.5])["w"] == 1.5
    assert by_peft(peft.ties, base, tuned, [0.5, 0.5], 1.0)["w"] == 0.75


def test_at_density_zero_dare_of_peft_is_nan_and_ours_the_base():
    base, tuned = one_weight(1.0, 2.0)
    assert torch.isnan(by_peft(peft.dare_linear, base, tuned, [1.0, 1.0], 0.0)["w"]).all()
    assert ours(dropping(0.0, "inverse"), SUM, base, tuned, [1.0, 1.0])["w"] == 0.0


def test_a_row_of_one_entry_is_dropped_by_chance_here_and_breaks_dellas_probabilities_in_mergekit():
    base, tuned = {"w": torch.zeros(3, 1)}, [{"w": torch.ones(3, 1)}]
    with pytest.raises(RuntimeError, match="p_in >= 0"):
        merge_state_dicts([base, *tuned], "della", base=0, parameters={"weight": [1.0], "density": 0.5})
    assert (magprune_probabilities(tuned[0]["w"], 0.5, 0.15) == 0.5).all()


def test_mergekits_rescaling_restores_the_norm_of_each_draw_and_not_the_expected_value():
    """Of one large entry and many small ones: if the large one is dropped, the small ones are blown up."""
    tensor = torch.tensor([100.0] + [1.0] * 20)
    uniform = [uniform_draws([21], seed, "m", "w") for seed in range(500)]
    norms = {float(drop(tensor, 0.5, u, "l1").abs().sum()) for u in uniform}
    assert max(norms) - min(norms) < 1e-3
    mean = torch.stack([drop(tensor, 0.5, u, "l1") for u in uniform]).mean(dim=0)
    assert mean[0] < 60
    assert mean[1:].mean() > 2.5
