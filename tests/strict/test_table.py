"""Columns of CSV and Parquet files: text stays text, and numbers are read as exactly as they are written."""

import datetime

import numpy as np
import pandas as pd
import pytest

from harness.errors import BadInput
from harness.strict.table import coded, numbers, read_table, texts


@pytest.fixture
def written(tmp_path):
    def write(name, **columns):
        path = tmp_path / name
        table = pd.DataFrame(columns)
        table.to_csv(path, index=False) if name.endswith("csv") else table.to_parquet(path, index=False)
        return read_table(path), path

    return write


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (["a", " b", "ü,\n"], ["a", " b", "ü,\n"]),
        ([7, 8], ["7", "8"]),
        ([7.0, 0.1], ["7.0", "0.1"]),
        ([True, False], ["True", "False"]),
        (pd.Categorical(["b", "a", "b"]), ["b", "a", "b"]),
    ],
)
def test_values_are_as_python_writes_them(written, values, text):
    table, path = written("t.parquet", x=values)
    assert texts(table, "x", path) == text


def test_text_of_csv_is_never_converted(written, tmp_path):
    (tmp_path / "t.csv").write_text('x\n007\n7.0\nNA\n"a\nb"\n')
    assert texts(read_table(tmp_path / "t.csv"), "x", tmp_path) == ["007", "7.0", "NA", "a\nb"]


def test_codes_name_the_values(written):
    names, codes = coded(*(lambda found: (found[0], "x", found[1]))(written("t.csv", x=["b", "a", "b"])))
    assert [names[code] for code in codes] == ["b", "a", "b"]
    assert len(names) == 2


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_numbers_are_those_that_were_written(written, ending):
    values = np.random.default_rng(0).normal(size=50)
    table, path = written(f"t.{ending}", x=values)
    np.testing.assert_array_equal(numbers(table, "x", path), values)


@pytest.mark.parametrize("values", [["a", ""], ["a", None], [1.0, float("nan")], [b"a", b"b"], [datetime.date.today()]])
def test_what_is_no_text_is_refused_with_its_row_or_kind(written, values):
    table, path = written("t.parquet", x=values)
    with pytest.raises(BadInput, match=r"no value in row 2|holds (bytes|date)"):
        texts(table, "x", path)


def test_a_missing_number_is_refused(written):
    table, path = written("t.parquet", x=pd.array([1, None], "Int64"))
    with pytest.raises(BadInput, match="no value in row 2"):
        numbers(table, "x", path)


def test_a_column_that_there_is_not_is_told_with_those_that_there_are(written):
    table, path = written("t.csv", label=["a"], other=[1])
    with pytest.raises(BadInput, match=r"'lable' is missing; did you mean 'label'\? \(known: label, other\)"):
        texts(table, "lable", path)
