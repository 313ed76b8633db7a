"""Views of images: which are seen, what is done to them, and mixtures in equal shares."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from harness.store import Store
from harness.tasks import images
from harness.tasks.image_views import image_views
from harness.tasks.views import mixture, seen
from harness.types import Split
from tests.examples import examples

BLACK, WHITE = -0.5, 2.0
VIEWS = image_views(BLACK, WHITE)


def split_of(labels, seed=0):
    pixels = torch.rand(len(labels), 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    ids = [f"e{i}" for i in range(len(labels))]
    return Split("test", BLACK + (WHITE - BLACK) * pixels, torch.tensor(labels), ids, "digest")


def pixels(split):
    return (split.inputs - BLACK) / (WHITE - BLACK)


LABELS = st.lists(st.integers(0, 9), min_size=1, max_size=40)


@examples(30)
@given(LABELS, st.sampled_from(sorted(VIEWS)))
def test_a_view_keeps_the_images_of_its_labels_in_their_order(labels, name):
    split = split_of(labels)
    found = seen(split, name, VIEWS[name])
    kept = {"labels_0_4": range(5), "labels_5_9": range(5, 10)}.get(name, range(10))
    rows = [i for i, label in enumerate(labels) if label in kept]
    assert VIEWS[name].rows(split.labels).tolist() == rows
    assert found.labels.tolist() == [labels[i] for i in rows]
    assert list(found.ids) == [f"e{i}-{name}" for i in rows]
    assert list(found.groups) == [name] * len(rows)
    assert len(found.inputs) == len(rows)
    if name.startswith("labels"):
        assert torch.equal(found.inputs, split.inputs[rows])


def test_an_inverted_image_has_black_where_white_was():
    split = split_of([1, 7])
    found = seen(split, "inverted", VIEWS["inverted"])
    torch.testing.assert_close(pixels(found), 1 - pixels(split))
    torch.testing.assert_close(seen(found, "inverted", VIEWS["inverted"]).inputs, split.inputs)


def test_a_blurred_image_is_scipys():
    split = split_of([1, 7])
    expected = ndimage.uniform_filter(pixels(split).numpy(), size=(1, 1, 5, 5), mode="constant", cval=0.0)
    np.testing.assert_allclose(pixels(seen(split, "blurred", VIEWS["blurred"])).numpy(), expected, atol=1e-5)


def test_views_have_digests_of_their_own_and_leave_the_split_alone():
    split = split_of([0, 5, 9])
    before = split.inputs.clone()
    digests = {seen(split, name, VIEWS[name]).digest for name in VIEWS}
    assert len(digests | {split.digest}) == len(VIEWS) + 1
    assert torch.equal(split.inputs, before)


@examples(30)
@given(LABELS, st.integers(1, 12))
def test_any_prefix_of_a_mixture_has_equal_shares(labels, length):
    split = split_of([0, 5, *labels])
    parts = [seen(split, name, VIEWS[name]) for name in VIEWS]
    mixed = mixture(parts)
    assert len(mixed) == len(VIEWS) * min(len(part) for part in parts)
    assert len(mixed) == len(mixed.inputs) == len(set(mixed.ids)) == len(mixed.groups)
    counts = [list(mixed.groups[:length]).count(name) for name in VIEWS]
    assert max(counts) - min(counts) <= 1
    by_id = {part.ids[i]: (part.inputs[i], int(part.labels[i])) for part in parts for i in range(len(part))}
    for i, name in enumerate(mixed.ids):
        assert torch.equal(mixed.inputs[i], by_id[name][0])
        assert int(mixed.labels[i]) == by_id[name][1]
        assert name.endswith(mixed.groups[i])


# The task of a pool.


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return images.load("digits", Store(tmp_path_factory.mktemp("store")))


def test_without_views_the_task_is_itself(digits):
    assert digits.of_groups(()) is digits


def test_with_views_train_and_heldout_are_mixtures_and_test_stays_plain(digits):
    task = digits.of_groups(("labels_0_4", "inverted"))
    assert task.test is digits.test
    assert len(task.train) == 2 * len(digits.train) // 2
    assert set(task.heldout.groups) == {"labels_0_4", "inverted"}
    assert task.views == ("labels_0_4", "inverted")
    other = digits.of_groups(("inverted", "blurred"))
    for part in (lambda t: t.digest, lambda t: t.train.digest, lambda t: t.heldout.digest):
        assert len({part(digits), part(task), part(other)}) == 3


def test_one_view_is_all_of_it(digits):
    task = digits.of_groups(("labels_5_9",))
    assert task.train.digest != digits.train.digest
    assert torch.equal(task.train.labels, digits.train.labels[digits.train.labels >= 5])


def test_black_and_white_are_those_of_the_scans(digits):
    """So inverting swaps the least and the largest of the inputs."""
    inverted = digits.seen(digits.train, "inverted").inputs
    assert inverted.min() == pytest.approx(digits.train.inputs.min())
    assert inverted.max() == pytest.approx(digits.train.inputs.max())
