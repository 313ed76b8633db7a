"""Users' examples as tasks: read once, with digests of what they are, ids that stay, and notes on what is wrong."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from harness.checks.tasks import tried
from harness.errors import BadInput
from harness.models.raw import contents
from harness.tasks import raw_task
from tests.tasks.table_files import WRITERS

SHARES = {"heldout": 0.2, "test": 0.2}


def table(count=60, start=0, classes=("neg", "pos", "so")):
    return pd.DataFrame({"text": [f"text {i}" for i in range(start, start + count)],
                         "label": [classes[i % len(classes)] for i in range(count)]})  # fmt: skip


def write(folder, **tables):
    folder.mkdir(exist_ok=True)
    for name, each in tables.items():
        each.to_csv(folder / f"{name}.csv", index=False)


def given(**others):
    return {"train": "train.csv", "heldout": "heldout.csv", "test": "test.csv", **others}


@pytest.fixture
def splits(tmp_path):
    write(tmp_path, train=table(), heldout=table(30, 100), test=table(30, 200))
    return tmp_path


def parts(task):
    return task.train, task.heldout, task.test


def task_of(folder, **said):
    return tried({"texts": said}, folder).task


def texts_of(split):
    return [json.loads(content) for content in contents(split.inputs)]


def test_given_splits_are_in_the_order_of_their_files(splits):
    task = task_of(splits, **given())
    assert texts_of(task.heldout) == [[f"text {i}"] for i in range(100, 130)]
    assert [task.labels[label] for label in task.test.labels] == table(30)["label"].tolist()
    assert task.train.ids[:2] == ["train-0", "train-1"]
    assert (task.classes, task.notes, task.title) == (3, (), "texts of train.csv, heldout.csv, test.csv")


def test_every_format_is_the_same_task(splits):
    columns = {"text": table()["text"].tolist(), "label": table()["label"].tolist()}
    digests = set()
    for name, written in WRITERS.items():
        written(splits / name, columns)
        digests.add(task_of(splits, train=name, **SHARES).digest)
    assert digests == {task_of(splits, train="train.csv", **SHARES).digest}


def test_a_digest_is_of_examples_labels_ids_and_the_order_of_labels_and_of_no_name(splits, tmp_path):
    task = task_of(splits, **given())
    shutil.move(splits / "test.csv", splits / "other.csv")
    moved = task_of(splits, **given(test="other.csv"))
    assert moved.digest == task.digest
    renamed = pd.read_csv(splits / "train.csv").rename(columns={"text": "review"})
    renamed.to_csv(splits / "train.csv", index=False)
    for name in ("heldout.csv", "other.csv"):
        pd.read_csv(splits / name).rename(columns={"text": "review"}).to_csv(splits / name, index=False)
    assert task_of(splits, **given(test="other.csv", text="review")).digest == task.digest
    said = given(test="other.csv", text="review")
    digests = {task.digest, task_of(splits, **said, labels=["so", "pos", "neg"]).digest}
    other = pd.read_csv(splits / "other.csv")
    others = other.iloc[::-1], other.iloc[1:], other.assign(label="neg"), other.assign(review="a " + other["review"])
    for changed in others:
        changed.to_csv(splits / "other.csv", index=False)
        changed = task_of(splits, **said)
        digests.add(changed.digest)
        assert (changed.train.digest, changed.heldout.digest) == (task.train.digest, task.heldout.digest)
    other.assign(id=range(30)).to_csv(splits / "other.csv", index=False)
    for name in ("train.csv", "heldout.csv"):
        each = pd.read_csv(splits / name)
        each.assign(id=[f"{name} {i}" for i in range(len(each))]).to_csv(splits / name, index=False)
    digests.add(task_of(splits, **said, id="id").digest)
    assert len(digests) == 7


def test_what_was_read_is_not_read_again_until_it_changes(splits, monkeypatch):
    reads = []
    add = raw_task._Gathered._add
    monkeypatch.setattr(raw_task._Gathered, "_add", lambda *given: (reads.append(1), add(*given)))
    on = tried({"texts": given()}, splits)
    on.load(), on.load()
    assert len(reads) == 120
    write(splits, test=table(31, 200))
    assert len(on.load().test) == 31
    assert len(reads) == 241


def test_a_store_that_was_emptied_is_filled_again(splits):
    on = tried({"texts": given()}, splits)
    reference = on.refer()
    on.store.remove(reference.read)
    assert on.kind.load(reference, on.store, None).digest == on.task.digest


def test_what_is_split_off_goes_by_examples_not_by_their_order(splits):
    before = task_of(splits, train="train.csv", **SHARES)
    table().sample(frac=1, random_state=1).to_csv(splits / "train.csv", index=False)
    after = task_of(splits, train="train.csv", **SHARES)
    for one, other in zip(parts(before), parts(after), strict=True):
        assert texts_of(one) == texts_of(other)
        assert one.labels.tolist() == other.labels.tolist()
        assert np.bincount(one.labels).tolist() == [len(one) / 3] * 3


def test_heldout_alone_is_split_off_of_train(splits):
    task = task_of(splits, train="train.csv", heldout=0.25, test="test.csv")
    assert [len(split) for split in parts(task)] == [45, 15, 30]
    assert texts_of(task.test) == [[f"text {i}"] for i in range(200, 230)]


def test_one_file_may_say_its_splits_in_a_column(splits):
    said = {"train": table(), "Validation": table(30, 100), "test": table(30, 200)}
    tables = [each.assign(part=name) for name, each in said.items()]
    write(splits, all=pd.concat(tables).sample(frac=1, random_state=0))
    task = task_of(splits, data="all.csv", split="part")
    expected = task_of(splits, **given())
    for one, other in zip(parts(task), parts(expected), strict=True):
        assert sorted(texts_of(one)) == sorted(texts_of(other))
    write(splits, all=pd.concat(tables[::2]))
    assert len(task_of(splits, data="all.csv", split="part", heldout=0.2).heldout) == 12


def test_clusters_stay_whole_where_they_are_split_and_are_those_of_test(splits):
    users = table(120).assign(user=[f"u{i // 4}" for i in range(120)])
    write(splits, train=users)
    task = task_of(splits, train="train.csv", cluster="user", **SHARES)
    where = dict(zip(users["text"], users["user"], strict=True))
    of = [{where[text] for (text,) in texts_of(split)} for split in parts(task)]
    assert sum(map(len, of)) == len(set.union(*of)) == 30
    assert [len(split) for split in parts(task)] == [72, 24, 24]
    assert list(task.documents.clusters) == [where[text] for (text,) in texts_of(task.test)]
    assert not task.notes


def test_pairs_of_texts_are_kept_as_pairs(splits):
    write(splits, train=table().assign(hypothesis="so"))
    task = task_of(splits, train="train.csv", text=["text", "hypothesis"], **SHARES)
    assert texts_of(task.test)[0][1] == "so"


# Notes.


def test_leaks_and_contradictions_are_counted(splits):
    leaked = pd.concat([table(30, 200), table(4, 0), table(2, 100).assign(label="so")])
    write(splits, test=leaked)
    notes = task_of(splits, **given()).notes
    assert notes == (
        "4 of 36 test examples are training examples too, byte for byte",
        "2 of 36 test examples are held-out examples too, byte for byte",
        "2 examples are there with different labels, 4 times in all",
    )


def test_clusters_in_two_given_splits_are_counted(splits):
    write(splits, train=table().assign(user=range(60)), heldout=table(30, 100).assign(user=range(100, 130)),
          test=table(30, 200).assign(user=[i // 3 for i in range(30)]))  # fmt: skip
    assert task_of(splits, **given(), cluster="user").notes == (
        "10 of 10 clusters of test examples have training examples too",)  # fmt: skip


def test_labels_that_a_split_lacks_are_named(splits):
    write(splits, test=table(30, 200, ("neg", "pos")))
    assert task_of(splits, **given()).notes == ("no test example has the label 'so'",)
    write(splits, train=table(60, 0, ("neg", "pos")), test=table(30, 200))
    with pytest.raises(BadInput, match=r"the label 'so' of a held-out example is none of train's"):
        task_of(splits, **given())
    named = task_of(splits, **given(), labels=["neg", "pos", "so"])
    assert named.notes == ("no training example has the label 'so'",)
