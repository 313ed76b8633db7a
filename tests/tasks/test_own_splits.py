"""Splitting off: every example on one side, classes in their shares, clusters whole, and folds that cover."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from harness.tasks.own_splits import bins_for, bins_of, sizes_of_classes, split_bins, split_off
from tests.examples import examples

SHARES = st.tuples(st.floats(0.02, 0.45), st.floats(0.02, 0.45))
COUNTS = st.lists(st.integers(2, 90), min_size=1, max_size=30)


@examples(200)
@given(counts=COUNTS, shares=SHARES)
def test_every_class_is_within_one_of_its_exact_share(counts, shares):
    sizes = sizes_of_classes(np.array(counts), shares)
    exact = np.outer(counts, [1 - sum(shares), *shares])
    assert (np.abs(sizes - exact) < 1 + 1e-6).all()
    assert sizes.sum(axis=1).tolist() == counts
    assert (sizes[:, 0] >= 1).all()
    assert (sizes >= 0).all()


@examples(200)
@given(count=st.integers(4, 12), classes=st.integers(1, 200), shares=SHARES)
def test_rounding_does_not_add_up_over_many_small_classes(count, classes, shares):
    assume(count * (1 - sum(shares)) >= 1)  # else each class has one in train, whatever the share
    sizes = sizes_of_classes(np.full(classes, count), shares).sum(axis=0)
    assert np.abs(sizes - count * classes * np.array([1 - sum(shares), *shares])).max() < 2


def test_shares_that_come_out_even_are_met_exactly():
    assert sizes_of_classes(np.array([10, 30, 70]), (0.1, 0.3)).tolist() == [[6, 1, 3], [18, 3, 9], [42, 7, 21]]
    assert sizes_of_classes(np.array([10]), (0.0, 0.2)).tolist() == [[8, 0, 2]]


@examples(60)
@given(counts=COUNTS, shares=SHARES, seed=st.integers(0, 99), fold=st.integers(0, 5))
def test_splits_are_disjoint_whole_and_go_by_the_order_given(counts, shares, seed, fold):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    order = rng.permutation(len(labels))
    parts = split_off(labels, order, shares, fold)
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    for part, sizes in zip(parts, sizes_of_classes(np.array(counts), shares).T, strict=True):
        assert np.bincount(labels[part], minlength=len(counts)).tolist() == sizes.tolist()
    moved = rng.permutation(len(labels))  # the same examples, in another order of a file
    again = split_off(labels[moved], np.argsort(moved)[order], shares, fold)
    assert [moved[part].tolist() for part in again] == [part.tolist() for part in parts]


def test_over_folds_every_example_of_a_class_is_as_often_test():
    labels = np.repeat([0, 1], [20, 40])
    often = np.zeros(60, int)
    for fold in range(7):
        often[split_off(labels, np.arange(60), (0.2, 0.2), fold)[2]] += 1
    assert often.min() == 1
    assert often.max() == 2


# Clusters.


def clustered(seed, groups, classes, tied):
    """Labels and groups; where ``tied``, all of a group have one label."""
    rng = np.random.default_rng(seed)
    of = rng.permutation(np.repeat(np.arange(groups), rng.integers(1, 9, groups)))
    labels = rng.integers(0, classes, groups)[of] if tied else rng.integers(0, classes, len(of))
    return of, labels, rng.permutation(len(of))


@examples(60)
@given(seed=st.integers(0, 10_000), groups=st.integers(40, 120), tied=st.booleans(), shares=SHARES)
def test_no_cluster_is_on_two_sides(seed, groups, tied, shares):
    of, labels, order = clustered(seed, groups, 3, tied)
    count, heldout, test = bins_for(shares)
    bins = bins_of(of, labels, order, count)
    for fold in range(3):
        parts = split_bins(bins, (count, heldout, test), fold)
        assert sorted(np.concatenate(parts)) == list(range(len(of)))
        assert sum(len(np.unique(of[part])) for part in parts) == len(np.unique(of))
    moved = np.random.default_rng(seed).permutation(len(of))
    again = bins_of(of[moved], labels[moved], np.argsort(moved)[order], count)
    assert (again == bins[moved]).all()


@pytest.mark.parametrize("tied", [True, False])
def test_clusters_are_stratified_as_well_as_scikit_learn_does_it(tied):
    ours, theirs = [], []
    for seed in range(12):
        of, labels, order = clustered(seed, 60, 3, tied)
        shares = np.bincount(labels) / 5
        bins = bins_of(of, labels, order, 5)
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, of)
        ours += [np.abs(np.bincount(labels[bins == k], minlength=3) - shares).max() for k in range(5)]
        theirs += [np.abs(np.bincount(labels[fold], minlength=3) - shares).max() for _, fold in folds]
    assert np.mean(ours) <= 1.05 * np.mean(theirs)


def test_over_folds_every_cluster_is_as_often_test():
    for shares in ((0.2, 0.2), (0.3, 0.4), (0.1, 0.15)):
        count, heldout, test = bins_for(shares)
        bins = np.arange(count)
        for folds in range(1, 2 * count):
            of_folds = [split_bins(bins, (count, heldout, test), fold)[2] for fold in range(folds)]
            often = np.bincount(np.concatenate(of_folds), minlength=count)
            assert often.max() - often.min() <= 1


def test_bins_are_as_few_as_meet_the_shares():
    assert bins_for((0.2, 0.2)) == (5, 1, 1)
    assert bins_for((0.15, 0.1)) == (20, 3, 2)
    assert bins_for((0.0, 0.25)) == (4, 0, 1)
    assert bins_for((0.01, 0.0)) == (100, 1, 0)
