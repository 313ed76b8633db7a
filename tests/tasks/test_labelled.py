"""Folds of labelled data: the splits that seeds may have of their own."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.store import Store
from harness.tasks.images import load
from harness.tasks.labelled import stratified_rows

COUNTS, SIZES = (30, 41, 50), (5, 10, 15)
LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], COUNTS))


def often_test(folds, labels=LABELS, sizes=SIZES):
    """How often each example is test on the first folds."""
    rows = [stratified_rows(labels, sizes, fold)[2].numpy() for fold in range(folds)]
    return np.bincount(np.concatenate(rows), minlength=len(labels))


@pytest.mark.parametrize("fold", range(5))
def test_the_splits_of_a_fold_are_disjoint_and_stratified(fold):
    rows = [split.numpy() for split in stratified_rows(LABELS, SIZES, fold)]
    assert len(np.unique(np.concatenate(rows))) == 3 * sum(SIZES)
    for split, size in zip(rows, SIZES, strict=True):
        assert np.bincount(LABELS[split]).tolist() == [size] * 3


@settings(deadline=None)
@given(folds=st.integers(1, 40), sizes=st.tuples(*[st.integers(1, 10)] * 3))
def test_no_example_is_test_more_than_once_more_than_another_of_its_class(folds, sizes):
    found = often_test(folds, sizes=sizes)
    for label, count in enumerate(COUNTS):
        often = found[label == LABELS]
        assert often.max() - often.min() <= 1
        assert (often.min() >= 1) == (folds * sizes[2] >= count)  # enough folds: everything was test
        assert (often.max() > often.min()) == (folds * sizes[2] % count > 0)  # and then each as often


def test_the_first_fold_is_the_split_that_all_seeds_share():
    def of(labels, sizes):
        return hashlib.sha256(torch.cat(stratified_rows(labels, sizes, 0)).numpy().tobytes()).hexdigest()[:16]

    assert of(LABELS, SIZES) == "6666da3e38f34b29"  # as it was drawn before there were folds


def test_a_task_has_the_examples_of_its_fold_and_digests_of_its_own(tmp_path):
    store = Store(tmp_path)
    folds = [load("digits", store, fold=fold) for fold in range(3)]
    assert [f.digest for f in folds[:1]] == [load("digits", store).digest]
    splits = [split for fold in folds for split in (fold.train, fold.heldout, fold.test)]
    assert len({split.digest for split in splits} | {fold.digest for fold in folds}) == 12
    assert len(set().union(*(fold.test.ids for fold in folds))) == 1797  # 70 of a class three times: all of them
    limited = load("digits", store, 5, fold=1)
    assert list(limited.test.ids) == list(folds[1].test.ids[:5])
    assert limited.train.digest == folds[1].train.digest
