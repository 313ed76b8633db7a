"""What an import writes: every row in exactly one split, the same bytes every time, names that do not collide."""

import numpy as np
import pandas as pd
import pytest
import yaml

from harness.errors import BadInput
from harness.imports import Imported, write_pool
from harness.imports.writing import file_names
from tests.imports.sources import read_pool


def imported(classes=("a", "b"), members=("one", "two"), rows=20, **more):
    rng = np.random.default_rng(0)
    index = pd.Index([f"q{row}" for row in range(rows)], dtype=object)
    labels = [classes[row % len(classes)] for row in range(rows)]
    frames = {name: pd.DataFrame(rng.dirichlet(np.ones(len(classes)), rows), index, classes) for name in members}
    return Imported("probabilities", pd.DataFrame({"label": labels, **more}, index=index), frames, tuple(classes))


def test_every_row_is_in_one_split_with_its_label_and_every_number_is_written(tmp_path):
    source = imported()
    write_pool(source, tmp_path / "pool", "test")
    members, splits = read_pool(tmp_path / "pool")
    together = pd.concat(splits.values())
    assert sorted(together.index) == sorted(source.questions.index)
    assert together["label"].to_dict() == source.questions["label"].to_dict()
    for name, frame in source.members.items():
        assert members[name].index.tolist() == frame.index.tolist()
        assert members[name].to_dict("list") == frame.to_dict("list")


def test_the_same_source_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_pool(imported(), tmp_path / name / "pool", "test", seed=3)
    files = [{path.name: path.read_bytes() for path in (tmp_path / name / "pool").iterdir()} for name in "ab"]
    assert files[0] == files[1]
    assert set(files[0]) == {"one.parquet", "two.parquet", "heldout.parquet", "test.parquet", "suite.yaml"}


def test_a_class_called_like_a_column_makes_a_long_table(tmp_path):
    source = imported(classes=("id", "cost_x", "other"))
    write_pool(source, tmp_path / "pool", "test")
    frame = pd.read_parquet(tmp_path / "pool" / "one.parquet")
    wide = frame.pivot(index="id", columns="class", values="probability")
    expected = source.members["one"]
    np.testing.assert_array_equal(wide.loc[expected.index, list(source.classes)], expected)


def test_clusters_are_written_where_rows_ask_the_same(tmp_path):
    once = write_pool(imported(group=[str(row) for row in range(20)]), tmp_path / "once", "test")
    twice = write_pool(imported(group=[str(row // 2) for row in range(20)]), tmp_path / "twice", "test")
    assert not once.clustered
    assert twice.clustered
    assert yaml.safe_load(twice.suite.read_text())["task"]["table"]["cluster"] == "cluster"
    test = pd.read_parquet(tmp_path / "twice" / "test.parquet")
    assert (test["cluster"] == test["id"].map(lambda name: str(int(name[1:]) // 2))).all()


@pytest.mark.parametrize(
    "members",
    [["test", "heldout", "suite"], ["a/b", "a_b", "A/B"], ["..", "日本", "x" * 50], ["Ω", "é", "…"]],
)
def test_files_of_members_never_collide(members):
    files = file_names(members)
    names = [file.casefold() for file in files.values()]
    assert len({*names, "test.parquet", "heldout.parquet"}) == len(members) + 2
    assert all(file.isascii() and "/" not in file and not file.startswith(".") for file in files.values())


def test_nothing_that_is_there_is_lost(tmp_path):
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="not empty"):
        write_pool(imported(), tmp_path / "pool", "test")
    with pytest.raises(BadInput, match="empty"):
        write_pool(imported(rows=1), tmp_path / "other", "test")
    assert [path.name for path in tmp_path.rglob("*")] == ["pool", "mine.txt"]
