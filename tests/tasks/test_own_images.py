"""A user's images: folders by class as ``datasets`` reads them, tables of bytes and of paths; bytes are kept."""

import shutil
from pathlib import Path

import datasets
import pandas as pd
import pytest

from harness.checks.tasks import tried
from harness.errors import BadInput
from harness.models.raw import contents
from tests.tasks.picture_files import picture, write_classes

SHARES = {"heldout": 0.25, "test": 0.25}


def task_of(folder, **said):
    return tried({"images": said}, folder).task


def pooled(task):
    """The same of all splits, sorted."""
    return sorted(each for split in bytes_of(task) for each in split)


def bytes_of(task):
    """The image and the name of the label of each example, by split."""
    splits = (task.train, task.heldout, task.test)
    return [
        list(zip(contents(split.inputs), [task.labels[label] for label in split.labels], strict=True))
        for split in splits
    ]


@pytest.fixture
def splits(tmp_path):
    for start, name in enumerate(("train", "validation", "test")):
        write_classes(tmp_path / "all" / name, ("dog", "cat", "10"), start=1000 * start)
    return tmp_path


def test_folders_are_read_as_datasets_reads_them(splits):
    for folder in (splits / "all").iterdir():
        (folder / "cat" / "b.JPG").write_bytes(picture(7000, "JPEG"))
        (folder / "cat" / ".hidden.png").write_bytes(b"hidden")
        (folder / "cat" / "readme.txt").write_text("no image")
        (folder / ".ipynb_checkpoints").mkdir()
        (folder / "__MACOSX").mkdir()
    task = task_of(splits, data="all")
    found = datasets.load_dataset("imagefolder", data_dir=str(splits / "all"), cache_dir=str(splits / "cache"))
    for ours, name in zip(bytes_of(task), ("train", "validation", "test"), strict=True):
        theirs = found[name].cast_column("image", datasets.Image(decode=False))
        names = theirs.features["label"].names
        paths = [Path(example["image"]["path"]) for example in theirs]
        expected = [(path.read_bytes(), names[label]) for path, label in zip(paths, theirs["label"], strict=True)]
        assert sorted(ours) == sorted(expected)
        assert list(task.labels) == names
    assert task.test.ids[:2] == ["test/10/0.png", "test/10/1.png"]
    assert any("byte for byte" in note for note in task.notes)  # the JPEG above is in all splits


def test_images_in_folders_below_a_class_are_of_that_class(splits):
    deeper = splits / "all" / "train" / "cat" / "a" / "b"
    deeper.mkdir(parents=True)
    (deeper / "c.png").write_bytes(picture(7000))
    (splits / "elsewhere").mkdir()
    (splits / "elsewhere" / "d.png").write_bytes(picture(7001))
    (splits / "all" / "train" / "dog" / "linked").symlink_to(splits / "elsewhere")
    task = task_of(splits, data="all")
    assert {"train/cat/a/b/c.png", "train/dog/linked/d.png"} < set(task.train.ids)
    assert task.train.labels[task.train.ids.index("train/cat/a/b/c.png")] == task.labels.index("cat")
    assert len(task.train) == 14


def test_splits_may_be_named_one_by_one_or_split_off(splits):
    whole = task_of(splits, data="all")
    named = task_of(splits, train="all/train", heldout="all/validation", test="all/test")
    assert named.digest == whole.digest
    parts = task_of(splits, train="all/train", **SHARES)
    assert [len(split) for split in (parts.train, parts.heldout, parts.test)] == [6, 3, 3]
    assert pooled(parts) == sorted(bytes_of(whole)[0])


def test_tables_of_images_and_of_paths_are_the_same_images(splits):
    folders = task_of(splits, train="all/train", **SHARES)
    expected = pooled(folders)
    root = splits / "all" / "train"
    rows = [(file.relative_to(root).as_posix(), file.parent.name) for file in root.glob("*/*.png")]
    paths = pd.DataFrame(rows, columns=["image", "label"])
    paths.assign(image="all/train/" + paths["image"]).to_csv(splits / "paths.csv", index=False)
    paths.assign(image=str(root) + "/" + paths["image"]).to_json(
        splits / "absolute.jsonl", orient="records", lines=True)  # fmt: skip
    files = [(root / path).read_bytes() for path in paths["image"]]
    paths.assign(image=files).to_parquet(splits / "bytes.parquet")
    named = {"image": [str(root / path) for path in paths["image"]], "label": paths["label"].tolist()}
    saved = datasets.Dataset.from_dict(named).cast_column("image", datasets.Image())
    saved.save_to_disk(str(splits / "saved"))
    saved.to_parquet(str(splits / "struct.parquet"))
    digests = set()
    for name in ("paths.csv", "absolute.jsonl", "bytes.parquet", "saved", "struct.parquet"):
        task = task_of(splits, train=name, **SHARES)
        assert pooled(task) == expected, name
        digests.add(task.digest)
    assert len(digests) == 1


def test_an_image_that_changed_beside_its_table_is_read_anew(splits):
    rows = [(f"all/train/{name}/{k}.png", name) for name in ("cat", "dog") for k in range(4)]
    pd.DataFrame(rows, columns=["image", "label"]).to_csv(splits / "paths.csv", index=False)
    on = tried({"images": {"train": "paths.csv", **SHARES}}, splits)
    before, again = on.load(), on.load()
    assert before.digest == again.digest
    (splits / "all/train/cat/0.png").write_bytes(picture(77))
    assert on.load().digest != before.digest


def test_names_of_folders_above_and_of_files_of_tables_are_not_in_the_digest(splits):
    before = task_of(splits, train="all/train", heldout="all/validation", test="all/test")
    shutil.move(splits / "all", splits / "moved")
    assert task_of(splits, data="moved").digest == before.digest


@pytest.mark.parametrize("column", ["id", "cluster"])
def test_folders_have_no_columns(splits, column):
    with pytest.raises(BadInput, match="a folder of images has no column 'x'"):
        task_of(splits, data="all", **{column: "x"})
