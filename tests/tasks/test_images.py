"""The image tasks: three splits that are disjoint, stratified and always the same."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

from harness.errors import BadInput
from harness.store import Store
from harness.tasks.archives import MNIST_5K, archive_folder
from harness.tasks.images import TASKS, TaskSpec, load
from harness.tasks.labelled import stratified_rows

SPLITS = ("train", "heldout", "test")
CLASSES = 10


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(params=["digits", "mnist5k"])
def task(request, store):
    if request.param == "mnist5k" and not (archive_folder() / MNIST_5K.file).is_file():
        pytest.skip(f"{MNIST_5K.file} is not on this machine, and tests fetch nothing")
    return load(request.param, store)


@pytest.fixture
def digits(store):
    return load("digits", store)


def splits_of(task):
    return [getattr(task, name) for name in SPLITS]


def assert_same_split(a, b):
    assert (a.name, list(a.ids), a.digest) == (b.name, list(b.ids), b.digest)
    assert torch.equal(a.inputs, b.inputs)
    assert torch.equal(a.labels, b.labels)


def test_no_example_is_in_two_splits_and_none_twice_in_one(task):
    ids = [example for split in splits_of(task) for example in split.ids]
    assert len(set(ids)) == len(ids)
    images = torch.cat([split.inputs.flatten(1) for split in splits_of(task)]).numpy()
    assert len(np.unique(images, axis=0)) == len(images)  # under another number neither


def test_every_split_has_as_many_examples_of_each_class_as_declared(task):
    for split, size in zip(splits_of(task), TASKS[task.name].sizes, strict=True):
        assert torch.bincount(split.labels, minlength=CLASSES).tolist() == [size] * CLASSES
        assert len(split) == len(split.inputs) == len(split.ids) == size * CLASSES


def test_examples_are_shuffled_and_not_sorted_by_class(task):
    for split in splits_of(task):
        assert len(set(split.labels[:30].tolist())) > CLASSES / 2


def test_inputs_are_images_of_the_declared_side_scaled_to_mean_0_and_deviation_1(task):
    spec = TASKS[task.name]
    everything = torch.cat([split.inputs for split in splits_of(task)])
    assert everything.dtype == torch.float32
    assert everything.shape[1:] == (1, spec.side, spec.side)
    assert all(split.labels.dtype == torch.int64 for split in splits_of(task))
    assert everything.mean().item() == pytest.approx(0, abs=0.02)
    assert everything.std().item() == pytest.approx(1, abs=0.02)


def test_an_id_names_the_same_example_as_in_the_source(digits):
    pixels, labels = TASKS["digits"].read()
    for split in splits_of(digits):
        rows = [int(example.removeprefix("digits-")) for example in split.ids]
        assert split.labels.tolist() == labels[rows].tolist()
        back = (split.inputs.flatten(1) * TASKS["digits"].std + TASKS["digits"].mean) * 16
        np.testing.assert_allclose(back.numpy(), pixels[rows], atol=1e-4)


def test_a_classifier_learns_on_train_what_holds_on_test(digits):
    """Images and labels belong together in every split."""
    from sklearn.neighbors import KNeighborsClassifier

    train, heldout, test = splits_of(digits)
    model = KNeighborsClassifier(1).fit(train.inputs.flatten(1), train.labels)
    for split in (heldout, test):
        assert model.score(split.inputs.flatten(1), split.labels) > 0.95


def test_the_splits_are_the_same_for_every_seed_and_every_store(digits, tmp_path):
    for seed in range(2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        again = load("digits", Store(tmp_path / str(seed)))
        assert again.digest == digits.digest
        for a, b in zip(splits_of(again), splits_of(digits), strict=True):
            assert_same_split(a, b)


def test_the_splits_are_the_same_in_another_process(digits, store):
    code = "import sys; from pathlib import Path; from harness.store import Store; from harness.tasks import images\n"
    code += "task = images.load('digits', Store(Path(sys.argv[1])))\n"
    code += "print(*task.train.ids, *task.heldout.ids, *task.test.ids)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(store.root)], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == [example for split in splits_of(digits) for example in split.ids]


def test_loading_leaves_the_global_generators_alone(store):
    torch.manual_seed(7)
    np.random.seed(7)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(7)
    np.random.seed(7)
    load("digits", store)
    assert (torch.rand(1), np.random.rand()) == expected


@pytest.mark.parametrize("limit", [1, 25, 699])
def test_a_limit_cuts_the_test_split_and_nothing_else(digits, store, limit):
    limited = load("digits", store, limit)
    for name in ("train", "heldout"):
        assert_same_split(getattr(limited, name), getattr(digits, name))
    assert list(limited.test.ids) == list(digits.test.ids[:limit])
    assert torch.equal(limited.test.inputs, digits.test.inputs[:limit])
    assert limited.test.digest != digits.test.digest
    assert limited.digest != digits.digest


def test_different_limits_have_different_digests(digits, store):
    loaded = [load("digits", store, limit) for limit in (1, 2, 3)]
    assert len({task.test.digest for task in (digits, *loaded)}) == 4
    assert len({split.digest for split in splits_of(digits)}) == 3


def test_a_limit_beyond_the_examples_changes_no_example(digits, store):
    assert_same_split(load("digits", store, 10_000).test, digits.test)


def test_a_task_is_read_once_and_then_from_the_store(tmp_path, monkeypatch):
    reads = []

    def read():
        reads.append(1)
        rng = np.random.default_rng(0)
        return rng.integers(0, 9, size=(60, 4)).astype(np.uint8), np.repeat(np.arange(3), 20)

    spec = TaskSpec("title", "source 1", 2, 8.0, 0.5, 0.25, (5, 5, 10), read)
    monkeypatch.setitem(TASKS, "planted", spec)
    kept = Store(tmp_path)
    first, second = load("planted", kept), load("planted", kept, 3)
    assert len(reads) == 1
    assert [len(split) for split in splits_of(first)] == [15, 15, 30]
    assert_same_split(first.train, second.train)
    monkeypatch.setitem(TASKS, "planted", dataclasses.replace(spec, source="source 2"))
    other = load("planted", kept)
    assert len(reads) == 2
    digests = {split.digest for task in (first, other) for split in splits_of(task)}
    assert len(digests) == 3  # the same data is the same, wherever it comes from


def test_a_digest_is_of_what_models_are_given(tmp_path, monkeypatch):
    def read():
        return np.random.default_rng(0).integers(0, 9, size=(60, 4)).astype(np.uint8), np.repeat(np.arange(3), 20)

    spec = TaskSpec("title", "source", 2, 8.0, 0.5, 0.25, (5, 5, 10), read)
    others = dataclasses.replace(spec, mean=0.25), dataclasses.replace(spec, sizes=(5, 6, 9))
    digests = set()
    for each in (spec, *others):
        monkeypatch.setitem(TASKS, "planted", each)
        digests.add(load("planted", Store(tmp_path)).digest)
    assert len(digests) == 3


def test_rows_are_drawn_from_every_class_whatever_their_order():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [30, 40, 50]))
    rows = [split.tolist() for split in stratified_rows(labels, (5, 10, 15))]
    assert [len(split) for split in rows] == [15, 30, 45]
    assert len(set(sum(rows, []))) == 90  # noqa: RUF017
    for split, size in zip(rows, (5, 10, 15), strict=True):
        assert np.bincount(labels[split]).tolist() == [size] * 3
    assert [split.tolist() for split in stratified_rows(labels, (5, 10, 15))] == rows


def test_an_unknown_task_names_the_nearest(store):
    with pytest.raises(BadInput) as caught:
        load("digitz", store)
    message = str(caught.value)
    assert "unknown task 'digitz'; did you mean 'digits'? (known: " in message
    assert "mnist5k" in message


def test_a_task_whose_archive_cannot_be_had_leaves_nothing_in_the_store(tmp_path, monkeypatch):
    monkeypatch.setenv("STOCKPOT_ARCHIVES", str(tmp_path / "archives"))
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 1, "", "ERROR: offline"))
    with pytest.raises(BadInput) as caught:
        load("mnist5k", Store(tmp_path / "store"))
    for word in (MNIST_5K.file, MNIST_5K.sha256, str(tmp_path / "archives"), "offline"):
        assert word in str(caught.value)
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []
