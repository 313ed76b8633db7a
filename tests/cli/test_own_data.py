"""A user's own data at the command line: each of many faults is one line with its place; plan says what was read."""

import os
import pickle
import shutil

import datasets
import pandas as pd
import pytest

from tests.cli.command import call
from tests.tasks.picture_files import bomb, frames, picture, write_classes
from tests.tasks.table_files import write_feather, write_jsonl, write_parquet, write_saved, write_stream

SUITE = "suite: own\ntask: {%s}\npool: {hf: {members: [model]}}\nmethods: [best_single]\n"
SPLITS = "train: train.csv, heldout: heldout.csv, test: test.csv"
OFF = "heldout: 0.2, test: 0.2"
ROWS = {"text": [f"text {i}" for i in range(20)], "label": ["neg", "pos"] * 10}


@pytest.fixture
def folder(tmp_path):
    """Three tables of texts, and images by class."""
    datasets.disable_progress_bars()
    for number, name in enumerate(("train", "heldout", "test")):
        table(number).to_csv(tmp_path / f"{name}.csv", index=False)
    write_classes(tmp_path / "pictures")
    return tmp_path


def table(start=0, **others):
    return pd.DataFrame({**ROWS, "text": [f"text {start} {i}" for i in range(20)], **others})


def refused(capsys, folder, task):
    """The one line that planning says."""
    (folder / "suite.yaml").write_text(SUITE % task)
    code, out, err = call(capsys, "plan", folder / "suite.yaml", "--out", folder / "results")
    assert (code, out) == (2, ""), err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def texts(folder, content, name="train.csv"):
    """A file for train in place of the good one."""
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def saved(folder, name, **columns):
    table(**columns).to_csv(folder / name, index=False)


def without(folder):
    """No file for test."""
    (folder / "test.csv").unlink()
    return folder / "test.csv"


def no_data(folder):
    write_saved(folder / "saved", ROWS)
    next((folder / "saved").glob("*.arrow")).unlink()


def no_classes(folder):
    for each in (folder / "pictures").iterdir():
        shutil.rmtree(each)


CSV = "text,label\n"
TABLES = {
    "no such file": (without, "test.csv: there is no such file or folder"),
    "a folder": (lambda f: without(f).mkdir(), "no data set that 'datasets' saved"),
    "a pipe": (lambda f: os.mkfifo(without(f)), "neither a file nor a folder"),
    "a link in a circle": (lambda f: without(f).symlink_to(f / "test.csv"), "Too many levels of symbolic links"),
    "an empty file": (lambda f: texts(f, ""), "train.csv: the file is empty"),
    "only a header": (lambda f: texts(f, CSV), "train.csv: there are no examples in it"),
    "no header": (lambda f: texts(f, "\n\n"), "the file has no header"),
    "a column misspelt": (lambda f: texts(f, "txet,label\nx,1\n"),
                          "the column 'text' is missing; did you mean 'txet'? (known: label, txet)"),
    "no labels": (lambda f: texts(f, "text\nx\n"), "the column 'label' is missing"),
    "a column twice": (lambda f: texts(f, "text,label,text\nx,a,y\n"), "the column 'text' is there twice"),
    "latin-1": (lambda f: texts(f, CSV.encode() + b"fine,pos\ncaf\xe9,neg\n"),
                        "train.csv:3: the byte 0xe9 is not UTF-8"),
    "utf-16": (lambda f: texts(f, (CSV + "x,y\n").encode("utf-16")), "train.csv:1: the byte 0xff is not UTF-8"),
    "a row too long": (lambda f: texts(f, CSV + "a,pos\nb,c,neg\n"),
                        "train.csv:3: a row of 3 fields, under a header of 2"),
    "a row too short": (lambda f: texts(f, CSV + "a,pos\nb\n"), "train.csv:3: a row of 1 fields"),
    "a quote left open": (lambda f: texts(f, CSV + 'a,pos\n"b,neg\nc,pos\n'), "train.csv:3: no CSV"),
    "a blank text": (lambda f: texts(f, CSV + "a,pos\n  ,neg\n"), "train.csv:3: its text is blank"),
    "a missing label": (lambda f: texts(f, CSV + "a,pos\nb,\n"), "train.csv:3: it has no label"),
    "a label that is NaN": (lambda f: texts(f, CSV + "a,pos\nb,nan\n"), "train.csv:3: it has no label"),
    "one label": (lambda f: [saved(f, f"{n}.csv", label="pos") for n in ("train", "heldout", "test")],
                  "all examples have the label 'pos'"),
    "a label that train lacks": (lambda f: saved(f, "test.csv", label=["pos", "meh"] * 10),
                                 "test.csv: the label 'meh' of a test example is none of train's (known: neg, pos)"),
    "a label spelt otherwise": (lambda f: saved(f, "test.csv", label=["pos", "Neg"] * 10), "did you mean 'neg'?"),
    "a pickle": (lambda f: (f / "train.csv").write_bytes(pickle.dumps(ROWS)), "is not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize(("broken", "words"), TABLES.values(), ids=TABLES)
def test_a_table_with_a_fault_is_one_line(capsys, folder, broken, words):
    broken(folder)
    assert words in refused(capsys, folder, f"texts: {{{SPLITS}}}")


def cut(write, name):
    def broken(folder):
        write(folder / name, {"text": [f"text {i}" for i in range(500)], "label": ["a", "b"] * 250})
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) * 2 // 3])

    return broken


def of_classes(folder, labels, name="saved"):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    columns = {"text": [f"text {i}" for i in range(len(labels))], "label": labels}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(folder / name))


def several(folder):
    datasets.DatasetDict({"a": datasets.Dataset.from_dict(ROWS)}).save_to_disk(str(folder / "saved"))


def lines(folder, *objects):
    texts(folder, "".join(f"{each}\n" for each in objects), "a.jsonl")


GOOD = '{"text": "x", "label": "a"}'
OTHERS = {
    "parquet cut off": (cut(write_parquet, "a.parquet"), "a.parquet", "cut off?"),
    "arrow cut off": (cut(write_stream, "a.arrow"), "a.arrow", "cut off?"),
    "feather cut off": (cut(write_feather, "a.feather"), "a.feather", "cut off?"),
    "lines cut off": (cut(write_jsonl, "a.jsonl"), "a.jsonl", "was the file cut off?"),
    "csv as parquet": (lambda f: shutil.copy(f / "train.csv", f / "a.parquet"), "a.parquet", "cannot be read"),
    "a pickle's name": (lambda f: (f / "a.pkl").write_bytes(pickle.dumps(ROWS)), "a.pkl", "never read: save the table"),
    "a name without ending": (lambda f: texts(f, CSV, "data"), "data", "'data' is no kind of file that is read here"),
    "an ending misspelt": (lambda f: texts(f, CSV, "a.jsnl"), "a.jsnl", "did you mean '.jsonl'?"),
    "a nested text": (lambda f: lines(f, GOOD, '{"text": {"a": 1}, "label": "a"}'), "a.jsonl",
                        "a.jsonl:2: its text is an object"),
    "a number as text": (lambda f: lines(f, '{"text": 3, "label": "a"}'), "a.jsonl", "a.jsonl:1: its text is a number"),
    "a text that is null": (lambda f: lines(f, GOOD, '{"text": null, "label": "a"}'), "a.jsonl",
                        "a.jsonl:2: it has no text"),
    "a text that is NaN": (lambda f: lines(f, GOOD, '{"text": NaN, "label": "a"}'), "a.jsonl",
                        "a.jsonl:2: it has no text"),
    "half a character": (lambda f: lines(f, '{"text": "\\ud800", "label": "a"}'), "a.jsonl", "a lone surrogate"),
    "a key that is missing": (lambda f: lines(f, GOOD, '{"text": "x"}'), "a.jsonl",
                        "a.jsonl:2: the key 'label' is missing"),
    "no objects": (lambda f: lines(f, "[1]"), "a.jsonl", "item 1: no JSON object"),
    "nested without end": (lambda f: lines(f, "{" * 9 + '"a":' + "[" * 100_000), "a.jsonl", "no JSON"),
    "a label with a fraction": (lambda f: lines(f, '{"text": "x", "label": 1.5}'), "a.jsonl", "the label is 1.5"),
    "NaN in a column of numbers": (lambda f: write_parquet(f / "a.parquet", {"text": ["x"], "label": [float("nan")]}),
                                   "a.parquet", "row 1: it has no label"),
    "labels of minus one": (lambda f: of_classes(f, [0, 1, -1]), "saved", "saved: row 3: it has no label (-1)"),
    "a label beyond the classes": (lambda f: write_parquet(f / "a.parquet", {"text": ["x"], "label": [[1]]}),
                                   "a.parquet", "the label is a list"),
    "a data set without its data": (no_data, "saved", "a file of the data set is missing"),
    "several splits": (several, "saved", "the folder holds several splits"),
    "a label of one example": (lambda f: saved(f, "a.csv", label=["once", *ROWS["label"][1:]]), "a.csv",
                               "the label 'once' has one example, which cannot be split"),
}  # fmt: skip


@pytest.mark.parametrize(("broken", "name", "words"), OTHERS.values(), ids=OTHERS)
def test_a_file_of_another_kind_with_a_fault_is_one_line(capsys, folder, broken, name, words):
    broken(folder)
    found = refused(capsys, folder, f"texts: {{train: {name}, {OFF}}}")
    assert words in found
    assert str(folder / name) in found


SAID = {
    "a share of nothing": ("texts: {train: train.csv, heldout: 0.0, test: test.csv}",
                        "a share of train between 0 and 1"),
    "a share of all": ("texts: {train: train.csv, heldout: 1, test: test.csv}", "a share of train between 0 and 1"),
    "shares of more than all": ("texts: {train: train.csv, heldout: 0.5, test: 0.5}", "leave nothing to train on"),
    "no test": ("texts: {train: train.csv, heldout: 0.2}", "suite.yaml:2: the key 'test' is missing"),
    "no train": ("texts: {heldout: heldout.csv, test: test.csv}", "suite.yaml:2: the key 'train' is missing"),
    "train and data": (f"texts: {{data: train.csv, {SPLITS}}}", "'data' and 'train' are both there"),
    "a column of splits without data": (f"texts: {{{SPLITS}, split: part}}", "'split' is a column of 'data'"),
    "data without splits": ("texts: {data: train.csv}", "there are no held-out examples"),
    "data of splits and a share": ("texts: {data: parts.csv, split: part, heldout: 0.2}",
                                   "there are held-out examples, and a share of train for 'heldout'"),
    "data of splits and a file": ("texts: {data: parts.csv, split: part, test: test.csv}",
                        "'test' is given, and there are test"),
    "an unknown split": ("texts: {data: parts.csv, split: label}", "parts.csv:2: 'neg' is no split"),
    "three columns of text": (f"texts: {{{SPLITS}, text: [a, b, c]}}", "a column, or two whose texts make a pair"),
    "a key misspelt": (f"texts: {{{SPLITS}, lable: stars}}", "unknown key 'lable'; did you mean 'label'?"),
    "a label that is not named": (f"texts: {{{SPLITS}, labels: [neg, poss]}}",
                        "'pos' is none of the labels that the suite names; did you mean 'poss'?"),
    "a label named twice": (f"texts: {{{SPLITS}, labels: [neg, neg]}}", "'labels' names 'neg' twice"),
    "an id twice": (f"texts: {{{SPLITS}, id: label}}", "train.csv: the id 'neg' is there twice"),
    "an id in two splits": ("texts: {train: ids.csv, heldout: ids.csv, test: ids.csv, id: id}",
                            "ids.csv: the id '0' is there in the training split too"),
    "one cluster": (f"texts: {{train: parts.csv, {OFF}, cluster: same}}", "the column 'same' has too few values"),
    "clusters of one label each": (f"texts: {{train: parts.csv, {OFF}, cluster: label}}", "without tearing one"),
}  # fmt: skip


@pytest.mark.parametrize(("task", "words"), SAID.values(), ids=SAID)
def test_a_suite_that_asks_what_cannot_be_is_one_line(capsys, folder, task, words):
    saved(folder, "parts.csv", part=["train"] * 10 + ["val"] * 5 + ["test"] * 5, same="x")
    saved(folder, "ids.csv", id=range(20))
    assert words in refused(capsys, folder, task)


def image(content, name="0.png"):
    return lambda folder: (folder / "pictures" / "cat" / name).write_bytes(content)


IMAGES = {
    "no bytes": (image(b""), "cat/0.png: the image is empty"),
    "no image": (image(b"plain text"), "cat/0.png: no image of a kind that is read here"),
    "cut off": (image(picture(1, size=(40, 40))[:900]), "cat/0.png: the image cannot be read"),
    "a photo cut off": (image(picture(1, "JPEG", size=(40, 40))[:-300], "0.jpg"),
                        "cat/0.jpg: the image cannot be read"),
    "animated": (image(frames(3, "GIF"), "0.gif"), "cat/0.gif: the image has 3 frames"),
    "an empty class": (lambda f: (f / "pictures" / "owl").mkdir(), "owl: there are no images in the folder of a class"),
    "no classes": (no_classes, "no folders of classes"),
    "one class": (lambda f: shutil.rmtree(f / "pictures" / "dog"), "all examples have the label 'cat'"),
    "a circle of folders": (lambda f: (f / "pictures" / "cat" / "up").symlink_to(f / "pictures" / "cat"), "leads back"),
    "huge": (image(bomb(20_000)), "cat/0.png: the image has more than 89,478,485 pixels"),
    "a link to nowhere": (lambda f: (f / "pictures" / "cat" / "9.png").symlink_to("gone.png"),
                        "9.png: there is no such"),
    "a pipe": (lambda f: os.mkfifo(f / "pictures" / "cat" / "9.png"), "9.png: this is neither a file nor a folder"),
}  # fmt: skip


@pytest.mark.parametrize(("broken", "words"), IMAGES.values(), ids=IMAGES)
def test_a_folder_of_images_with_a_fault_is_one_line(capsys, folder, broken, words):
    broken(folder)
    assert words in refused(capsys, folder, "images: {train: pictures, heldout: 0.25, test: 0.25}")


@pytest.mark.parametrize(
    ("cell", "words"),
    [("gone.png", "gone.png: there is no such file"), ("pictures", "'pictures' is a folder, not an image"),
     ("", "it has no image"), ("train.csv", "train.csv: no image of a kind")],
)  # fmt: skip
def test_a_table_of_paths_with_a_fault_is_one_line(capsys, folder, cell, words):
    paths = [f"pictures/{name}/{k}.png" for name in ("cat", "dog") for k in range(4)]
    pd.DataFrame({"image": [*paths, cell], "label": ["cat"] * 4 + ["dog"] * 5}).to_csv(folder / "a.csv", index=False)
    assert words in refused(capsys, folder, f"images: {{train: a.csv, {OFF}}}")


def test_a_table_of_images_with_a_fault_is_one_line(capsys, folder):
    write_parquet(folder / "a.parquet", {"image": [picture(1), b"no image"], "label": ["a", "b"]})
    assert "a.parquet: row 2: no image of a kind" in refused(capsys, folder, f"images: {{train: a.parquet, {OFF}}}")
    write_parquet(folder / "a.parquet", {"image": [3, 4], "label": ["a", "b"]})
    assert "an image is bytes, or the path of a file" in refused(capsys, folder, f"images: {{train: a.parquet, {OFF}}}")


def test_seeds_cannot_have_splits_of_their_own_where_test_is_given(capsys, folder):
    (folder / "suite.yaml").write_text(SUITE % f"texts: {{{SPLITS}}}" + "split: per_seed\nseeds: [0, 1]\n")
    code, _, err = call(capsys, "validate", folder / "suite.yaml")
    assert (code, err.count("\n")) == (2, 1)
    assert "suite.yaml:5: the test split is given, so that all seeds share it" in err


def test_the_forms_and_their_keys_are_listed(capsys):
    code, out, _ = call(capsys, "ls", "tasks")
    assert code == 0
    for words in ("{texts: …}  Your own texts: CSV, TSV, JSON lines, Parquet", "{images: …}  Your own images: folders",
                  "  cluster       a column", "  text          the column of texts"):  # fmt: skip
        assert words in out
