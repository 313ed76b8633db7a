"""Tables: splits that share no row, in every class's share, standardised by train; and their views."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from harness.errors import BadInput
from harness.store import Store
from harness.tasks.archives import TABLES, archive_folder
from harness.tasks.labelled import SPLITS, shared_out, stratified_rows
from harness.tasks.table_views import EVERY, NOISE, table_views
from harness.tasks.tabular import TASKS, load
from harness.types import Split
from tests.examples import examples
from tests.tasks.planted_table import SPEC


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(params=["planted", "letter"])
def task(request, store, monkeypatch):
    if request.param == "letter" and not (archive_folder() / TABLES.file).is_file():
        pytest.skip(f"{TABLES.file} is not on this machine, and tests fetch nothing")
    monkeypatch.setitem(TASKS, "planted", SPEC)
    return load(request.param, store)


def splits_of(task):
    return [getattr(task, name) for name in SPLITS]


def rows_of(split):
    return [int(example.rpartition("-")[2]) for example in split.ids]


def test_no_row_is_in_two_splits_even_under_another_number(task):
    ids = [example for split in splits_of(task) for example in split.ids]
    assert len(set(ids)) == len(ids)
    inputs = torch.cat([split.inputs for split in splits_of(task)])
    assert len(torch.unique(inputs, dim=0)) == len(inputs)


def test_splits_have_the_declared_sizes_and_every_class_its_share(task):
    table, labels = TASKS[task.name].read()
    counts = np.bincount(labels[np.unique(table, axis=0, return_index=True)[1]])
    for split, size in zip(splits_of(task), TASKS[task.name].sizes, strict=True):
        assert len(split) == len(split.inputs) == len(split.ids) == size
        found = np.bincount(split.labels, minlength=task.classes)
        assert np.abs(found - counts * size / counts.sum()).max() <= 3
        assert len(set(split.labels[:20].tolist())) > task.classes / 4  # shuffled, not sorted by class


def test_columns_are_standardised_by_the_training_split_as_sklearn_does_it(task):
    table, labels = TASKS[task.name].read()
    scaler = StandardScaler().fit(table[rows_of(task.train)].astype(np.float64))
    for split in splits_of(task):
        np.testing.assert_allclose(split.inputs, scaler.transform(table[rows_of(split)]), rtol=0, atol=1e-5)
        assert split.inputs.dtype == torch.float32
        assert split.labels.tolist() == labels[rows_of(split)].tolist()
    assert task.shape == {"features": table.shape[1], "classes": labels.max() + 1}


def test_a_classifier_learns_on_train_what_holds_on_test(task):
    train, *others = splits_of(task)
    model = KNeighborsClassifier(1).fit(train.inputs, train.labels)
    assert all(model.score(split.inputs, split.labels) > 0.85 for split in others)


def test_a_limit_cuts_test_alone_and_a_fold_draws_other_rows(task, store):
    limited, folded = load(task.name, store, limit=7), load(task.name, store, fold=1)
    assert list(limited.test.ids) == list(task.test.ids[:7])
    assert torch.equal(limited.test.inputs, task.test.inputs[:7])
    assert limited.train.digest == task.train.digest
    assert {len(split) for split in splits_of(folded)} == set(TASKS[task.name].sizes)
    assert len({each.digest for of in (limited, folded, task) for each in (of, of.test)}) == 6
    assert set(folded.train.ids) != set(task.train.ids)


def test_an_unknown_table_names_those_there_are(store):
    with pytest.raises(BadInput, match=r"unknown task 'leter'; did you mean 'letter'\?"):
        load("leter", store)


# Sharing out.


@examples(100)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.tuples(*[st.floats(0, 1)] * 3), st.integers(0, 3))
def test_shares_add_up_and_are_near_proportional(counts, shares, fold):
    counts = np.array(counts)
    total = counts.sum()
    sizes = tuple(int(share * total / 3) for share in shares)
    found = shared_out(counts, sizes)
    assert found.sum(axis=0).tolist() == list(sizes)
    assert (np.abs(found - np.outer(counts, sizes) / total) <= 3).all()
    assert (found >= 0).all()
    assert (found.sum(axis=1) <= counts).all()
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    rows = stratified_rows(labels, found, fold)
    assert len(set(torch.cat(rows).tolist())) == sum(sizes)
    for row, of_split in zip(rows, found.T, strict=True):
        assert np.bincount(labels[row.numpy()], minlength=len(counts)).tolist() == of_split.tolist()


# Views.


def test_halves_keep_their_labels_and_together_all_rows(task):
    halves = [name for name in task.groups if task.known_views[name].labels]
    kept = [task.seen(task.test, name) for name in halves]
    for name, half in zip(halves, kept, strict=True):
        assert set(half.labels.tolist()) == set(task.known_views[name].labels)
        rows = task.known_views[name].rows(task.test.labels)
        assert torch.equal(half.inputs, task.test.inputs[rows])
    assert sum(len(half) for half in kept) == len(task.test)


@examples(30)
@given(st.lists(st.integers(0, 500), min_size=1, max_size=8, unique=True), st.integers(0, 7))
def test_noise_is_the_rows_own_whatever_stands_beside_it(rows, position):
    view = table_views({})["noisy"]
    inputs = torch.arange(len(rows) * 3.0).view(-1, 3)
    whole = Split("test", inputs, torch.zeros(len(rows), dtype=torch.int64), [f"t-x-{row}" for row in rows], "d")
    one = position % len(rows)
    alone = Split("train", inputs[one : one + 1], whole.labels[:1], [whole.ids[one]], "d")
    torch.testing.assert_close(view.corrupt(alone)[0], view.corrupt(whole)[one])
    assert torch.equal(view.corrupt(whole), view.corrupt(whole))


def test_noise_has_the_declared_deviation(task):
    noise = task.seen(task.train, "noisy").inputs - task.train.inputs
    assert noise.std().item() == pytest.approx(NOISE, rel=0.1)
    assert noise.mean().item() == pytest.approx(0, abs=0.1)


def test_dropped_columns_are_at_their_mean_and_all_others_as_they_were(task):
    before = task.test.inputs.clone()
    dropped = task.seen(task.test, "dropped").inputs
    gone = np.arange(before.shape[1]) % EVERY == 0
    assert (dropped[:, gone] == 0).all()
    assert torch.equal(dropped[:, ~gone], before[:, ~gone])
    assert torch.equal(task.test.inputs, before)
