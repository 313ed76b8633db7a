"""Tables of users: what was written is read, in every format, as ``datasets`` reads it; broken files are one line."""

import tempfile
from pathlib import Path

import datasets
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import BadInput
from harness.tasks.own_tables import open_table
from tests.examples import examples
from tests.tasks.table_files import WRITERS, write_csv, write_json, write_parquet, write_saved

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
AWKWARD = ["plain", "", " a, b ", 'say "x"', "two\nlines", "a\r\nb", "tab\there", "\u2028\u0085\x0b", "日本 🙂 e\u0301",
           "NA", "null", "nan", "1.0", "\\n", "'", "=1+1", "\ufeffmark", "#", "\x00"]  # fmt: skip


def rows_of(path, columns=("text", "label")):
    return [tuple(cells) for _, cells in open_table(path).rows(columns)]


@examples(12)
@given(rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=12))
@pytest.mark.parametrize("name", WRITERS)
def test_what_was_written_is_read(name, rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        text, label = zip(*rows, strict=True)
        WRITERS[name](path, {"text": list(text), "other": ["x"] * len(rows), "label": list(label)})
        assert rows_of(path) == rows


@pytest.mark.parametrize("name", WRITERS)
def test_rows_are_those_that_datasets_reads(name, tmp_path):
    columns = {"label": ["pos", "neg"] * len(AWKWARD), "text": [*AWKWARD, *reversed(AWKWARD)]}
    WRITERS[name](tmp_path / name, columns)
    if name == "saved":
        found = datasets.load_from_disk(str(tmp_path / name))
    else:
        loader = {"csv": "csv", "tsv": "csv", "jsonl": "json", "json": "json", "parquet": "parquet"}
        ending = name.rpartition(".")[2]
        said = {"sep": "\t" if ending == "tsv" else ",", "keep_default_na": False} if "sv" in name else {}
        files = str(tmp_path / name)
        found = datasets.load_dataset(loader.get(ending, "arrow"), data_files=files, split="train", **said)
    assert rows_of(tmp_path / name) == list(zip(found["text"], found["label"], strict=True))


def test_numbers_of_typed_files_stay_what_they_are(tmp_path):
    columns = {"text": ["a", "b"], "label": [1, 0], "flag": [True, False], "lists": [["x"], []]}
    for name in ("a.json", "a.jsonl", "a.parquet", "a.feather", "a.arrow", "saved"):
        WRITERS[name](tmp_path / name, columns)
        assert rows_of(tmp_path / name, list(columns)) == [("a", 1, True, ["x"]), ("b", 0, False, [])]


def test_classes_are_known_by_the_names_that_datasets_keeps(tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["z", "a"])})
    saved = datasets.Dataset.from_dict({"text": ["x", "y", "z"], "label": [0, 1, 0]}, features=features)
    saved.save_to_disk(str(tmp_path / "saved"))
    saved.to_parquet(str(tmp_path / "a.parquet"))
    saved.select([2, 0]).save_to_disk(str(tmp_path / "some"))
    for name in ("saved", "a.parquet", "some"):
        assert open_table(tmp_path / name).classes == {"label": ("z", "a")}
    assert rows_of(tmp_path / "some") == [("z", 0), ("x", 0)]
    assert open_table(tmp_path / "saved").classes.get("text") is None


def test_categories_are_read_as_their_values(tmp_path):
    pd.DataFrame({"text": ["a", "b"], "label": pd.Categorical(["pos", "neg"])}).to_parquet(tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet") == [("a", "pos"), ("b", "neg")]


def test_a_mark_of_the_byte_order_and_empty_lines_are_no_content(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbftext,label\r\n\r\nx,1\r\n")
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "x", "label": "1"}\n\n')
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf [{"text": "x", "label": "1"}]')
    assert all(rows_of(path) == [("x", "1")] for path in tmp_path.iterdir())


def test_places_are_lines_of_files_that_people_open(tmp_path):
    write_csv(tmp_path / "a.csv", {"text": ["one\ntwo", "x"], "label": ["1", "2"]})
    table = open_table(tmp_path / "a.csv")
    assert [table.place(line) for line, _ in table.rows(["text"])] == [f"{table.path}:2", f"{table.path}:4"]
    write_parquet(tmp_path / "a.parquet", {"text": ["x", "y"]})
    assert [number for number, _ in open_table(tmp_path / "a.parquet").rows(["text"])] == [1, 2]


@pytest.mark.parametrize("name", ["a.parquet", "a.feather", "a.arrow", "a.json"])
@pytest.mark.parametrize("kept", [0.3, 0.8, 0.99])
def test_a_file_that_was_cut_off_is_refused(name, kept, tmp_path):
    WRITERS[name](tmp_path / name, {"text": [f"text {i}" for i in range(300)], "label": ["a"] * 300})
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(BadInput, match=r"was it cut off|was the file cut off"):
        rows_of(tmp_path / name)


@examples(40)
@given(st.integers(0, 10_000), st.integers(0, 255), st.sampled_from(["a.parquet", "a.feather", "a.arrow"]))
def test_a_file_with_a_wrong_byte_is_read_or_refused(place, byte, name):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        WRITERS[name](path, {"text": [f"text {i}" for i in range(30)], "label": ["a", "b"] * 15})
        content = bytearray(path.read_bytes())
        content[place % len(content)] = byte
        path.write_bytes(content)
        try:
            assert all(len(row) == 2 for row in rows_of(path))
        except BadInput as fault:
            assert str(path) in str(fault)


def test_data_sets_stay_inside_their_folder(tmp_path):
    write_saved(tmp_path / "saved", {"text": ["x"], "label": ["a"]})
    state = tmp_path / "saved" / "state.json"
    (tmp_path / "outside.arrow").write_bytes((tmp_path / "saved" / "data-00000-of-00001.arrow").read_bytes())
    state.write_text(state.read_text().replace("data-00000-of-00001.arrow", "../outside.arrow"))
    with pytest.raises(BadInput, match=r"'../outside.arrow' is outside of the data set's folder"):
        open_table(tmp_path / "saved")


def test_texts_of_arrow_that_are_not_utf8_are_refused(tmp_path):
    bad = pa.array([b"\xff\xfe"]).cast(pa.binary()).view(pa.string())
    for name in ("a.parquet", "a.arrow"):
        WRITERS[name](tmp_path / name, {"text": bad, "label": ["a"]})
        with pytest.raises(BadInput, match=r"UTF-?8"):
            rows_of(tmp_path / name)


def test_a_list_of_objects_may_lie_in_a_json_file(tmp_path):
    write_json(tmp_path / "a.json", {"text": ["x"], "label": ["a"]})
    assert open_table(tmp_path / "a.json").columns == ["text", "label"]
