"""TIES on flat task vectors against slow readings of its paper and its authors' code, and what each name means."""

import itertools
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from harness.merging.sparsify import trim
from harness.merging.ties import (
    DIALECTS,
    MERGEKIT,
    PAPER,
    PEFT,
    STOCKPOT,
    SUM,
    elect_signs,
    merge_vectors,
    sign_conflicts,
)
from harness.types import NotApplicable
from tests.examples import examples
from tests.merging import by_hand

MANY = examples(80)
DENSITIES = st.sampled_from([1e-9, 0.1, 0.2, 0.25, 1 / 3, 0.5, 0.9, 0.999, 1.0])
PRESETS = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
READINGS = {"stockpot": by_hand.ties, "paper": by_hand.ties_by_the_authors}


@st.composite
def task_vectors(draw, most=5):
    """Task vectors of one length, of small whole numbers: many are equal, cancel or are zero, and sums are exact."""
    length = draw(st.integers(1, 12))
    return draw(st.lists(st.lists(st.integers(-4, 4), min_size=length, max_size=length), min_size=1, max_size=most))


def ties(taus, density, dialect):
    vectors = torch.tensor(taus, dtype=torch.float32)
    return merge_vectors(torch.stack([trim(vector, density, dialect.keep) for vector in vectors]), dialect)


@pytest.mark.parametrize("dialect", [STOCKPOT, PAPER], ids=lambda d: d.name)
@MANY
@given(task_vectors(), DENSITIES)
@example([[0]], 1.0)
@example([[2], [-2]], 0.2)
@example([[1, -1, 0], [-1, -1, 2]], 1.0)
@example([[1, -1], [-1, -1], [0, 0]], 1.0)
@example([[0, 0, 0, 0], [0, 0, 0, 0]], 0.5)
@example([[3, -3, 3, -3], [-3, 3, -3, 3]], 0.5)
def test_it_is_the_paper(dialect, taus, density):
    expected = READINGS[dialect.name](taus, density)
    assert ties(taus, density, dialect).tolist() == torch.tensor(expected, dtype=torch.float64).float().tolist()


@pytest.mark.parametrize("dialect", [STOCKPOT, PAPER], ids=lambda d: d.name)
@pytest.mark.parametrize("density", [0.05, 0.2, 0.5, 1.0])
def test_it_is_the_paper_on_real_numbers_too(dialect, density):
    taus = torch.randn(4, 401, generator=torch.Generator().manual_seed(3)).tolist()
    torch.testing.assert_close(ties(taus, density, dialect), torch.tensor(READINGS[dialect.name](taus, density)))


@PRESETS
@MANY
@given(task_vectors(most=1), DENSITIES)
def test_one_member_is_its_trimmed_task_vector(dialect, taus, density):
    trimmed = trim(torch.tensor(taus[0], dtype=torch.float32), density, dialect.keep)
    assert ties(taus, density, dialect).tolist() == trimmed.tolist()


@PRESETS
@MANY
@given(task_vectors(), st.lists(st.sampled_from([-1, 1]), min_size=12, max_size=12))
def test_with_equal_signs_and_nothing_trimmed_it_is_the_plain_mean(dialect, taus, signs):
    taus = [[s * (abs(t) + 1) for t, s in zip(tau, signs, strict=False)] for tau in taus]
    mean = torch.tensor(taus, dtype=torch.float64).mean(dim=0).float()
    torch.testing.assert_close(ties(taus, 1.0, dialect), mean)


@PRESETS
@MANY
@given(task_vectors(), DENSITIES, st.randoms(use_true_random=False))
def test_the_order_of_the_members_does_not_matter(dialect, taus, density, random):
    assert torch.equal(ties(random.sample(taus, len(taus)), density, dialect), ties(taus, density, dialect))


@pytest.mark.parametrize(
    "entries", [(0.17, 0.82, -0.99), (1e8, -1.0, -1e8), (0.1, 0.2, -0.3, 1e-9)], ids=str
)
def test_nor_does_it_where_the_entries_cancel_but_for_rounding(entries):
    """A float32 sum has another sign in another order; the elected sign decides which entries count at all."""
    column = torch.tensor(entries).unsqueeze(1)
    exact_sum = sum(map(Fraction, column.flatten().tolist()))
    assert exact_sum < 0  # a sum that is rounded to zero would be taken for positive
    for order in itertools.permutations(range(len(entries))):
        assert elect_signs(column[list(order)]).tolist() == [-1]


# What each name means.


@pytest.mark.parametrize(
    ("zero_sum", "towards_plus", "towards_minus", "neither"),
    [("majority", 1, -1, 1), ("majority_or_negative", 1, -1, -1), ("positive", 1, 1, 1)],
)
def test_the_sign_of_a_sum_of_zero(zero_sum, towards_plus, towards_minus, neither):
    plus = torch.tensor([[2.0, 1.0, 1.0], [-2.0, 1.0, 0.0]])
    drawn = torch.tensor([[2.0, 1.0, -1.0], [-2.0, 0.0, 0.0]])
    assert elect_signs(plus, "sum", zero_sum).tolist() == [towards_plus, 1, 1]
    assert elect_signs(-plus, "sum", zero_sum).tolist() == [towards_minus, -1, -1]
    assert elect_signs(drawn, "sum", zero_sum).tolist() == [neither, 1, -1]
    merged = merge_vectors(-plus, replace(STOCKPOT, zero_sum=zero_sum))
    assert merged.tolist() == [2.0 * towards_minus, -1.0, -1.0]


def test_an_election_by_sum_and_by_count():
    vectors = torch.tensor([[5.0], [-1.0], [-2.0], [0.0]])
    assert elect_signs(vectors, "sum").tolist() == [1]
    assert elect_signs(vectors, "count").tolist() == [-1]
    assert merge_vectors(vectors, STOCKPOT).tolist() == [5.0]
    assert merge_vectors(vectors, STOCKPOT.changed(elect="count")).tolist() == [-1.5]
    assert merge_vectors(vectors, STOCKPOT.changed(elect="none", divide="count")).tolist() == [0.5]
    assert merge_vectors(vectors, STOCKPOT.changed(elect="none", divide="none")).tolist() == [2.0]


def test_those_that_disagree_and_zeros_do_not_dilute_the_mean():
    vectors = torch.tensor([[3.0], [1.0], [0.0], [-2.0]])
    for dialect in DIALECTS.values():
        assert merge_vectors(vectors, dialect).tolist() == [2.0]
        assert merge_vectors(torch.zeros(2, 3), dialect).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("weigh", "divide", "expected"),
    [
        ("before", "weights", 3.0),  # 0.75 * 3 outvotes 0.25 * -4 and 0.25 * -2
        ("before", "count", 2.25),
        ("before", "none", 2.25),
        ("after", "weights", -3.0),
        ("after", "count", -0.75),
        ("after", "none", -1.5),
    ],
)
def test_where_weights_enter_and_what_sums_are_divided_by(weigh, divide, expected):
    vectors, weights = torch.tensor([[-4.0], [-2.0], [3.0]]), [0.25, 0.25, 0.75]
    found = merge_vectors(vectors, STOCKPOT.changed(weigh=weigh, divide=divide), weights)
    assert found.tolist() == [expected]


def test_a_divisor_may_have_a_least_value():
    vectors = torch.tensor([[1.0, 1.5, -3.0], [-0.5, 1.5, 0.0]])
    dialect = replace(MERGEKIT, weigh="after")
    found = merge_vectors(vectors, dialect, [0.125, 0.25], least_divisor=0.2)
    assert found.tolist() == [0.625, 1.5, -1.875]
    assert merge_vectors(vectors, dialect, [0.125, 0.25]).tolist() == [1.0, 1.5, -3.0]


@PRESETS
@MANY
@given(task_vectors())
def test_task_vectors_are_left_alone_unless_they_may_be_overwritten(dialect, taus):
    vectors, weights = torch.tensor(taus, dtype=torch.float32), [1 + k / 4 for k in range(len(taus))]
    room = vectors.clone()
    expected = merge_vectors(room, dialect, weights)
    assert torch.equal(room, vectors)
    assert torch.equal(merge_vectors(room, dialect, weights, overwrite=True), expected)


@pytest.mark.parametrize("dialect", [STOCKPOT, MERGEKIT, PEFT], ids=lambda d: d.name)
@MANY
@given(task_vectors())
def test_equal_weights_of_one_change_nothing_and_those_of_zero_give_zero(dialect, taus):
    vectors = torch.tensor(taus, dtype=torch.float32)
    assert torch.equal(merge_vectors(vectors, dialect, [1.0] * len(taus)), merge_vectors(vectors, dialect))
    assert not merge_vectors(vectors, dialect, [0.0] * len(taus)).any()


@MANY
@given(task_vectors(), st.data())
def test_without_election_it_is_the_weighted_sum(taus, data):
    weights = data.draw(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=len(taus), max_size=len(taus)))
    expected = torch.tensor(weights) @ torch.tensor(taus, dtype=torch.float32)
    assert torch.equal(merge_vectors(torch.tensor(taus, dtype=torch.float32), SUM, weights), expected)


@MANY
@given(task_vectors())
def test_signs_conflict_where_one_is_positive_and_one_negative(taus):
    expected = [min(column) < 0 < max(column) for column in zip(*taus, strict=True)]
    assert sign_conflicts(torch.tensor(taus, dtype=torch.float32)).tolist() == expected


# Weights that have no meaning.


def test_weights_are_one_for_each_member():
    with pytest.raises(NotApplicable, match="2 weights are given for 3 members"):
        STOCKPOT.check_weights([1.0, 1.0], 3)


def test_the_paper_has_no_weights():
    with pytest.raises(NotApplicable, match="'paper' has no weights: take weigh=before"):
        PAPER.check_weights([1.0, 1.0], 2)
    PAPER.check_weights(None, 2)
    PAPER.changed(weigh="before").check_weights([1.0, -1.0], 2)


@pytest.mark.parametrize("dialect", [STOCKPOT, MERGEKIT, SUM.changed(divide="weights")], ids=lambda d: d.name)
def test_a_negative_weight_is_refused_where_sums_are_divided_by_weights(dialect):
    with pytest.raises(NotApplicable, match=r"weight -0.45 is negative .* take divide=none"):
        dialect.check_weights([0.5, -0.45], 2)
    dialect.changed(divide="none").check_weights([0.5, -0.45], 2)
    dialect.check_weights([0.5, 0.0], 2)


# Names and remarks.


def test_a_changed_dialect_says_so_in_its_name():
    assert MERGEKIT.changed(keep=None, divide=None) is MERGEKIT
    assert MERGEKIT.changed(scope="tensor") is MERGEKIT  # as it is already
    changed = MERGEKIT.changed(elect="count", divide="none")
    assert (changed.elect, changed.divide, changed.keep) == ("count", "none", MERGEKIT.keep)
    assert changed.name == "mergekit with elect=count, divide=none"


def test_remarks_tell_what_is_surprising_in_a_preset_and_nothing_else():
    remarks = {name: [*d.trim_remarks, *d.merge_remarks] for name, d in DIALECTS.items()}
    assert remarks["stockpot"] == []
    assert remarks["paper"] == [
        "one entry more than the density says is kept, and all that equal it",
        "without a majority, sums of zero count as negative",
    ]
    assert remarks["mergekit"] == ["each tensor is trimmed on its own", "sums of zero count as positive"]
    assert remarks["peft"] == [
        "each tensor is trimmed on its own",
        "a small tensor may lose every entry",
        "sums of zero count as positive",
        "members' weights have no say in the election",
    ]
    assert SUM.merge_remarks == [
        "there is no election: all entries count",
        "sums are not divided and grow with the number of members",
    ]
