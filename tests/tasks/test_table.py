"""Tables of labels by id: what a task is made of, and what it is known again by."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from harness.errors import BadInput
from harness.store import Store
from harness.tasks import table
from harness.tasks.table import LabelsReference
from tests.pools import planted_predictions as planted


def reference(folder, **changes):
    files = tuple((split, str(folder / f"{split}.csv")) for split in changes.pop("splits", ("heldout", "test")))
    return LabelsReference("planted", files, **{"id": "id", "label": None, "cluster": None, "classes": None, **changes})


@pytest.fixture
def folder(tmp_path):
    planted.write_labels(tmp_path)
    return tmp_path


def load(folder, limit=None, **changes):
    return table.load(reference(folder, **changes), Store(folder / "store"), limit)


def test_rows_are_numbered_through_and_labels_are_by_name(folder):
    task = load(folder)
    assert task.heldout.inputs.tolist() == list(range(planted.HELDOUT))
    assert task.test.inputs.tolist() == list(range(planted.HELDOUT, planted.ROWS))
    assert list(task.ids) == planted.IDS
    assert torch.cat([task.heldout.labels, task.test.labels]).tolist() == planted.LABELS.tolist()
    assert task.class_names == tuple(planted.CLASSES)
    assert len(task.train) == 0


def test_a_training_split_comes_first(folder):
    pd.DataFrame({"id": ["t0", "t1"], "label": ["bee", "ape"]}).to_csv(folder / "train.csv", index=False)
    task = load(folder, splits=("train", "heldout", "test"))
    assert task.train.labels.tolist() == [1, 0]
    assert task.ids[:3] == ("t0", "t1", "q0")
    assert task.heldout.inputs[0] == 2


def test_a_limit_keeps_the_rows_that_members_are_joined_by(folder):
    whole, some = load(folder), load(folder, limit=3)
    assert some.rows == whole.rows
    assert some.ids == whole.ids
    assert len(some.test) == 3
    assert some.digest != whole.digest


ORDERS = [(["10", "9", "2"], ["2", "9", "10"]), (["b", "10", "9"], ["10", "9", "b"])]


@pytest.mark.parametrize(("labels", "order"), ORDERS)
def test_classes_are_in_order_of_their_numbers_where_all_are_numbers(folder, labels, order):
    chosen = planted.labels().assign(label=[labels[k] for k in planted.LABELS])
    planted.write_labels(folder, chosen)
    assert list(load(folder).class_names) == order


def test_classes_that_have_no_row_can_be_named(folder):
    task = load(folder, classes=("dog", *planted.CLASSES))
    assert task.class_names == ("ape", "bee", "cat", "dog")
    assert task.shape == {"classes": 4}
    assert [note for note in task.documents.notes if "'dog'" in note]


def test_a_class_that_is_in_no_heldout_row_is_told(folder):
    chosen = planted.labels()
    chosen.loc[: planted.HELDOUT - 1, "label"] = ["ape", "bee"] * (planted.HELDOUT // 2)
    planted.write_labels(folder, chosen)
    assert load(folder).documents.notes == ["no held-out row is of the class 'cat': what is fitted knows nothing of it"]


def test_without_labels_every_row_is_to_be_right(folder):
    planted.write_labels(folder, planted.labels()[["id"]])
    task = load(folder)
    assert task.says == "correctness"
    assert task.class_names == ("wrong", "right")
    assert task.test.labels.tolist() == [1] * len(task.test)
    assert not task.documents.notes
    with pytest.raises(BadInput, match="'label' is missing"):
        load(folder, label="label")


def test_rows_of_one_cluster_are_known_as_such(folder):
    planted.write_labels(folder, planted.labels().assign(user=[f"u{i // 4}" for i in range(planted.ROWS)]))
    documents = load(folder, limit=10, cluster="user").documents
    assert list(documents.clusters) == [f"u{i // 4}" for i in range(planted.HELDOUT, planted.HELDOUT + 10)]


def test_other_content_or_other_columns_are_another_task_and_other_places_are_not(folder, tmp_path_factory):
    first = load(folder)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    planted.write_labels(elsewhere)
    assert load(elsewhere).digest == first.digest
    planted.write_labels(folder, planted.labels().assign(label=planted.labels()["label"][::-1].to_numpy()))
    assert load(folder).digest != first.digest
    planted.write_labels(elsewhere, planted.labels().assign(user="u"))
    assert load(elsewhere, cluster="user").digest != load(elsewhere).digest


def test_a_reference_is_known_again_by_what_was_read(folder):
    store = Store(folder / "store")
    rendered = table.rendered(reference(folder), store)
    assert rendered == table.rendered(reference(folder), store)
    assert rendered == replace(reference(folder), read=rendered.read)
    planted.write_labels(folder, planted.labels()[::-1])
    assert table.rendered(reference(folder), store) != rendered
    with pytest.raises(BadInput, match="changed since the run was planned"):
        table.load(rendered, store)
