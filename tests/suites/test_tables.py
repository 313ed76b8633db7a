"""Predictions of classifiers on tables: the rows of the task of the same name, and files in the form of predictions."""

import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import KNeighborsClassifier

from harness.store import Store
from harness.tasks import tabular
from harness.tasks.archives import TABLES
from harness.tasks.labelled import SPLITS
from tests.suites.script import load_script


@pytest.fixture(scope="module")
def script():
    return load_script("tables", TABLES)


def test_the_rows_of_letter_are_those_of_the_task_letter(script, tmp_path):
    task = tabular.load("letter", Store(tmp_path))
    rows = script.split_rows(*script.read_table("letter"), script.SIZES["letter"])
    for split in SPLITS:
        assert [f"letter-{row}" for row in rows[split]] == list(getattr(task, split).ids)


@pytest.mark.parametrize("name", ["letter", "magic", "penbased"])
def test_splits_share_no_row_even_where_the_table_repeats_it(script, name):
    table, labels = script.read_table(name)
    rows = script.split_rows(table, labels, script.SIZES[name])
    assert tuple(map(len, rows.values())) == script.SIZES[name]
    used = table[np.concatenate(list(rows.values()))]
    assert len(np.unique(used, axis=0)) == len(used)
    assert all(set(labels[part]) == set(labels) for part in rows.values())


def test_a_member_has_a_row_for_each_example_and_is_what_scikit_learn_says(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "make_members", lambda: {"knn": KNeighborsClassifier(3)})
    monkeypatch.setitem(script.SIZES, "penbased", (200, 100, 300))
    script.write_table("penbased", tmp_path)
    table, labels = script.read_table("penbased")
    answers = [pd.read_csv(tmp_path / f"{split}.csv", dtype=str) for split in ("heldout", "test")]
    member = pd.read_parquet(tmp_path / "knn.parquet")
    assert list(member["id"]) == [example for part in answers for example in part["id"]]
    asked = [int(example.rpartition("-")[2]) for example in member["id"]]
    assert list(labels[asked]) == [label for part in answers for label in part["label"]]
    trained = script.split_rows(table, labels, (200, 100, 300))["train"]
    oracle = KNeighborsClassifier(3).fit(table[trained], labels[trained])
    assert np.array_equal(member[list(oracle.classes_)], oracle.predict_proba(table[asked]))
    assert set(member) == {"id", "cost_ms", *oracle.classes_}
    assert member["cost_ms"].nunique() == 1
