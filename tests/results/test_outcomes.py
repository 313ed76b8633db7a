"""Outcomes by variant, read in parts, against a plain groupby."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.results.blocks import blocks
from harness.results.columns import column_of
from harness.results.outcomes import Outcomes
from harness.results.run import Run
from tests.examples import examples
from tests.gate.planted import coins, planted, saved


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), max_size=40))
@examples(60)
def test_blocks_are_the_rows_of_a_groupby(rows):
    table = pd.DataFrame(rows, columns=["word", "number"])
    found = blocks(table["word"], table["number"])
    assert positions(found) == {key: list(of) for key, of in table.groupby(["word", "number"]).indices.items()}
    assert positions(blocks(table["word"])) == {key: list(of) for key, of in table.groupby("word").indices.items()}


def positions(found):
    return {key: [i for rows in each for i in range(rows.start, rows.stop)] for key, each in found.items()}


@pytest.mark.parametrize("seeds", [1, 3])
def test_values_are_those_of_the_table_from_memory_and_from_a_folder(tmp_path, seeds):
    correct = {name: coins(0.8, n=40, seeds=seeds, seed=i) for i, name in enumerate(("b", "a", "c"))}
    run = planted(correct)
    for found in (Outcomes(run), Outcomes(Run(saved(run, tmp_path / "run"), run.record))):
        assert [name in found for name in ("a", "b", "c", "d")] == [True, True, True, False]
        assert "nll" in found.columns
        for name, right in correct.items():
            assert np.array_equal(found.values(name, "correct").astype(float), right)
            assert found.values(name, "nll") == pytest.approx(1.5 - right)


@pytest.mark.parametrize("size", [7, 25, 1000])
def test_values_are_those_of_the_table_however_the_file_is_divided_and_whatever_is_read_beside_them(tmp_path, size):
    correct = {name: coins(0.8, n=40, seeds=3, seed=i) for i, name in enumerate(("b", "a", "c"))}
    run = planted(correct)
    number = run.examples["example_id"].astype(str).str.removeprefix("x").astype(int)
    run.__dict__["examples"] = run.examples.assign(cluster="c" + (number // 6).astype(str))
    folder = saved(run, tmp_path / "run")
    run.examples.to_parquet(folder / "examples.parquet", index=False, row_group_size=size)
    other = Run(folder, run.record)
    whole, parts = Outcomes(run), Outcomes(other)
    assert parts.clusters(column_of("accuracy")) == whole.clusters(column_of("accuracy"))
    assert "examples" not in other.__dict__  # the table with all columns was not needed
    assert other.examples is not None
    for name, right in correct.items():
        assert np.array_equal(parts.values(name, "correct").astype(float), right)
        assert np.array_equal(parts.values(name, "example_id"), whole.values(name, "example_id"))


@pytest.mark.parametrize("kept", [False, True])
def test_where_seeds_have_examples_of_their_own_the_others_are_gaps(tmp_path, kept):
    """Of a run in memory, and in a folder."""
    right = coins(0.8, n=60, seeds=3)
    right[np.arange(60) // 20 != np.arange(3)[:, None]] = np.nan
    run = planted({"one": right, "two": 1 - right})
    if kept:
        run = Run(saved(run, tmp_path / "run"), run.record)
    places = [run.places[f"x{i}"] for i in range(60)]
    found = Outcomes(run)
    assert np.array_equal(found.values("one", "correct")[:, places], right, equal_nan=True)
    assert np.array_equal(found.values("two", "correct")[:, places], 1 - right, equal_nan=True)


def test_a_scores_values_are_its_outcomes_and_of_documents_their_measures():
    right = coins(0.8, n=40, seeds=2)
    run = planted({"one": right})
    found = Outcomes(run)
    assert np.array_equal(found.scored("one", column_of("accuracy")), right)
    assert found.scored("one", column_of("nll")) == pytest.approx(1.5 - right)
    assert found.scored("two", column_of("nll")) is None
    assert found.scored("one", column_of("macro_f1")) is None  # it is no mean of examples
    bits = pd.DataFrame({"variant": "one", "metric": "bits_per_byte", "seed": [0, 0, 1, 1], "document": [0, 1, 0, 1],
                         "value": [1.0, 2.0, 3.0, 4.0]})  # fmt: skip
    run.__dict__["document_measures"] = bits
    run.__dict__.pop("measured", None)
    assert Outcomes(run).scored("one", column_of("bits_per_byte")).tolist() == [[1, 2], [3, 4]]
    assert Outcomes(run).clusters(column_of("bits_per_byte")) == []


@pytest.mark.parametrize("own", [False, True])
def test_every_example_has_its_cluster(own):
    """Whether or not every seed has examples of its own."""
    right = coins(0.8, n=60, seeds=3)
    if own:
        right[np.arange(60) // 20 != np.arange(3)[:, None]] = np.nan
    run = planted({"one": right, "two": 1 - right})
    assert Outcomes(run).clusters(column_of("accuracy")) == []
    number = run.examples["example_id"].astype(str).str.removeprefix("x").astype(int)
    run.__dict__["examples"] = run.examples.assign(cluster="c" + (number // 6).astype(str))
    found = Outcomes(run).clusters(column_of("accuracy"))
    at = {place: name for name, place in run.places.items()} if own else {i: f"x{i}" for i in range(60)}
    assert found == [f"c{int(at[place][1:]) // 6}" for place in range(60)]


def test_a_folder_without_examples_has_no_outcomes(tmp_path):
    found = Outcomes(Run(tmp_path, {"seeds": [0]}))
    assert found.columns == []
    assert "a" not in found
