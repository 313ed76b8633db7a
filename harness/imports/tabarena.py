"""TabArena's (TabRepo's) folders of predictions: ``<dataset>/<fold>/pred-val.dat`` and what belongs to it.

The layout is that of github.com/autogluon/tabarena: raw arrays [models, rows, classes] whose shapes stand in
``metadata.json`` (tabarena.predictions.tabular_predictions.TabularModelPredictions._cache_data); labels in
``label-val.csv.zip`` (simulation.ground_truth.GroundTruth.to_data_dir), later in ``labels.dat``
(simulation.label_files.encode_labels), later both in one ``tasks.dat`` a dataset
(simulation.task_data.encode_dataset_tasks).
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.errors import BadInput
from harness.imports.files import json_file
from harness.imports.format import Asked, Format, Given
from harness.imports.imported import Imported
from harness.imports.tabular import Part, tabular
from harness.registry import FORMATS
from harness.strict.sizes import check_zip

METADATA, LABELS, TASKS = "metadata.json", "labels.dat", "tasks.dat"
SPLITS = ("val", "test")
HEADER = struct.Struct("<I")


def _folds(root: Path) -> dict[str, Path]:
    """The folders of predictions below a folder, by ``dataset/fold``."""
    folders = sorted(file.parent for file in root.rglob("pred-val.dat"))
    return {f"{folder.resolve().parent.name}/{folder.resolve().name}": folder for folder in folders}


def recognises(path: Path) -> bool:
    """A folder with raw predictions somewhere in it."""
    return path.is_dir() and any(True for _ in path.rglob("pred-val.dat"))


def read(given: Sequence[Given], asked: Asked) -> Imported:
    """The models of one fold of one dataset: validation rows are held-out, test rows are test."""
    folds = {name: folder for one in given for name, folder in _folds(one.path).items()}
    if not folds:
        raise BadInput("there is no pred-val.dat in it", place=str(given[0].path))
    chosen = asked.tasks or tuple(folds)
    for name in chosen:
        if name not in folds:
            raise BadInput(f"unknown task '{name}'", place=str(given[0].path), given=name, choices=folds)
    if len(chosen) > 1:
        raise BadInput("a pool is for one fold of one dataset: name it with --task", place=str(given[0].path),
                       choices=chosen)  # fmt: skip
    return _read_fold(folds[chosen[0]])


def _read_fold(folder: Path) -> Imported:
    facts, labels = _facts(folder)
    try:
        models = [str(name) for name in facts["models"]]
        shapes = {split: tuple(int(size) for size in facts[f"pred_{split}_shape"]) for split in SPLITS}
        dtype = np.dtype(facts["dtype"])
    except (KeyError, TypeError, ValueError) as fault:
        raise BadInput(f"the task's metadata lack {fault}", place=str(folder)) from None
    parts = {split: Part(_raw(folder, split, shapes[split], dtype), *labels[split]) for split in SPLITS}
    for split, part in parts.items():
        if part.predictions.ndim == 2 and not set(np.unique(part.labels)) <= {0, 1}:
            problem = f"the {split} labels are no classes: a task of regression has no class probabilities"
            raise BadInput(problem, place=str(folder))
    return tabular(models, parts, None, str(folder))


def _raw(folder: Path, split: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    path = folder / f"pred-{split}.dat"
    if not path.is_file():
        raise BadInput("the file is missing", place=str(path))
    if dtype.kind != "f" or path.stat().st_size != int(np.prod(shape)) * dtype.itemsize:
        problem = f"{path.stat().st_size} bytes are no {dtype} array of shape {list(shape)}: is it cut off?"
        raise BadInput(problem, place=str(path))
    return np.fromfile(path, dtype=dtype).reshape(shape)


Labels = Mapping[str, tuple[np.ndarray, list[str]]]
"""By split, the labels [N] and the names of the rows."""


def _facts(folder: Path) -> tuple[Mapping[str, Any], Labels]:
    """A fold's metadata and labels, from the files of whichever of the layouts it has."""
    together = folder.resolve().parent / TASKS
    if together.is_file():
        header, data = _with_header(together)
        fold = header.get("folds", {}).get(folder.resolve().name)
        if fold is not None:
            return fold, {split: _slice(data, fold["labels"][split], together) for split in SPLITS}
    facts = json_file(folder / METADATA) if (folder / METADATA).is_file() else None
    if facts is None:
        raise BadInput(f"there is no {METADATA} beside the predictions", place=str(folder))
    if (folder / LABELS).is_file():
        header, data = _with_header(folder / LABELS)
        first = np.dtype(header["val"]["dtype"]).itemsize * int(header["val"]["n"])
        offsets = {"val": 0, "test": first}
        return facts, {split: _slice(data, {**header[split], "offset": offsets[split]}, folder / LABELS)
                       for split in SPLITS}  # fmt: skip
    return facts, {split: _zipped(folder / f"label-{split}.csv.zip") for split in SPLITS}


def _with_header(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON header and the raw bytes after it."""
    blob = path.read_bytes()
    try:
        (length,) = HEADER.unpack_from(blob, 0)
        header = json.loads(blob[HEADER.size : HEADER.size + length].decode("utf-8"))
    except (struct.error, ValueError) as fault:
        raise BadInput(f"the header cannot be read ({fault}): is the file cut off?", place=str(path)) from None
    if header.get("version") != 1:
        raise BadInput(f"version {header.get('version')!r} is not known (known: 1)", place=str(path))
    return header, blob[HEADER.size + length :]


def _slice(data: bytes, spec: Mapping[str, Any], path: Path) -> tuple[np.ndarray, list[str]]:
    dtype, count = np.dtype(spec["dtype"]), int(spec["n"])
    if int(spec["offset"]) + count * dtype.itemsize > len(data):
        raise BadInput("there are fewer labels than the header says: is the file cut off?", place=str(path))
    return np.frombuffer(data, dtype, count, int(spec["offset"])), [str(row) for row in range(count)]


def _zipped(path: Path) -> tuple[np.ndarray, list[str]]:
    """Labels with the rows of the original table that they belong to."""
    check_zip(path)
    try:
        frame = pd.read_csv(path, index_col=0)
        return frame.iloc[:, 0].to_numpy(), [str(row) for row in frame.index]
    except FileNotFoundError:
        raise BadInput("the file is missing", place=str(path)) from None
    except (OSError, ValueError, IndexError, zipfile.BadZipFile) as fault:
        raise BadInput(f"the labels cannot be read ({fault})", place=str(path)) from None


FORMATS.add(
    Format(
        "tabarena",
        "a folder of TabArena or TabRepo, <dataset>/<fold>/pred-val.dat ...: probabilities of every model of one fold",
        recognises,
        read,
        ("tasks",),
        module=__name__,
    )
)
