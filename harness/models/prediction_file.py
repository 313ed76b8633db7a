"""A file of one model's predictions from anywhere, read as it is: npz, CSV or Parquet, wide or long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa

from harness.errors import BadInput
from harness.says import Says
from harness.strict.sizes import check_zip
from harness.strict.table import ENDINGS, check_file, coded, numbers, read_table, texts, unreadable

Form = Literal["probabilities", "log_probabilities", "logits"]
FORMS: tuple[Form, ...] = get_args(Form)
LONG: dict[str, Form] = {"probability": "probabilities", "log_probability": "log_probabilities", "logit": "logits"}
"""The columns of a long table (a row for each example and class) that hold the numbers."""
ID, CLASS, ANSWER, CORRECT, COST = "id", "class", "answer", "correct", "cost_"
NPZ = ".npz"


@dataclass(frozen=True, eq=False)
class Content:
    """What a file says, as it says it."""

    place: str
    ids: list[str]
    says: Says
    values: np.ndarray
    """[N, C] numbers, [N] positions in ``classes`` of answers, or [N] 0 and 1 where only right and wrong are known."""
    classes: list[str] | None = None
    """Their names; None where the file numbers them."""
    form: Form | None = None
    """What the numbers are, where the file says so."""
    costs: Mapping[str, np.ndarray] = field(default_factory=dict)
    """[N] by name, what each answer cost."""


def read_predictions(path: Path) -> Content:
    """A file as it is; ``BadInput`` where it is of no form that is known."""
    check_file(path, (NPZ, *ENDINGS))
    return _read_npz(path) if path.suffix == NPZ else _read_table(path)


def _read_npz(path: Path) -> Content:
    check_zip(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
    except Exception as error:  # numpy and zipfile raise a dozen kinds, down to those of Python's own tokenizer
        if "pickle" in str(error):
            raise BadInput("the file holds pickled objects, which are not read", place=str(path),
                           hint="save ids and classes as arrays of text or numbers") from None  # fmt: skip
        raise unreadable(path, error) from None
    place, kinds = str(path), (*FORMS, "predictions", "answers", CORRECT)
    if strays := [n for n in arrays if n not in ("ids", "classes", *kinds) and not n.startswith(COST)]:
        choices = ("ids", "classes", *kinds, f"{COST}...")
        raise BadInput(f"unknown array '{strays[0]}'", place=place, given=strays[0], choices=choices)
    given = [name for name in kinds if name in arrays]
    if len(given) != 1 or "ids" not in arrays:
        raise BadInput(f"it has ids, and one of {', '.join(kinds)}: this one has {', '.join(arrays) or 'nothing'}",
                       place=place)  # fmt: skip
    kind = given[0]
    ids = _words(arrays["ids"], "ids", place)
    for name in (kind, *(name for name in arrays if name.startswith(COST))):
        ndim = 2 if kind in (*FORMS, "predictions") and name == kind else 1
        if arrays[name].ndim != ndim or len(arrays[name]) != len(ids):
            shape = "[N, C]" if ndim == 2 else "[N]"
            has = list(arrays[name].shape)
            raise BadInput(f"'{name}' has the shape {has}, not {shape} of {len(ids)} ids", place=place)
    costs = {name.removeprefix(COST): _numbers(arrays[name], name, place) for name in arrays if name.startswith(COST)}
    classes = _words(arrays["classes"], "classes", place) if "classes" in arrays else None
    if kind == "answers":
        names, codes = np.unique(_words(arrays[kind], kind, place), return_inverse=True)
        return Content(place, ids, "answers", codes, names.tolist(), costs=costs)
    values = _numbers(arrays[kind], kind, place)
    if kind == CORRECT:
        return Content(place, ids, "correctness", values, costs=costs)
    if classes is not None and len(classes) != values.shape[1]:
        raise BadInput(f"{len(classes)} classes are named for {values.shape[1]} columns", place=place)
    form: Form | None = next((each for each in FORMS if each == kind), None)
    return Content(place, ids, "probabilities", values, classes, form, costs)


def _words(array: np.ndarray, name: str, place: str) -> list[str]:
    """An array [N] of text or numbers as text, these as Python writes them."""
    if array.ndim != 1 or array.dtype.kind not in "USiufb" or not len(array):
        raise BadInput(f"'{name}' is {array.dtype} {list(array.shape)}, not [N] of text or numbers", place=place)
    try:
        found = [each.decode() if isinstance(each, bytes) else str(each) for each in array.tolist()]
    except UnicodeDecodeError:
        raise BadInput(f"'{name}' is not UTF-8", place=place) from None
    if lacking := [row for row, each in enumerate(found) if each in ("", "nan")]:
        raise BadInput(f"'{name}' has no value in row {lacking[0] + 1}", place=place)
    return found


def _numbers(array: np.ndarray, name: str, place: str) -> np.ndarray:
    if array.dtype.kind not in "iufb":
        raise BadInput(f"'{name}' holds {array.dtype}, no numbers", place=place)
    return array.astype(np.float64)


def _read_table(path: Path) -> Content:
    table = read_table(path)
    names = [name for name in table.column_names if name != ID and not name.startswith(COST)]
    if CLASS in names and len(names) == 2 and (kind := next((each for each in LONG if each in names), None)):
        return _long(table, kind, path)
    ids = texts(table, ID, path)
    costs = {name.removeprefix(COST): numbers(table, name, path) for name in _cost_columns(table)}
    if names == [ANSWER]:
        classes, codes = coded(table, ANSWER, path)
        return Content(str(path), ids, "answers", codes, classes, costs=costs)
    if names == [CORRECT]:
        return Content(str(path), ids, "correctness", numbers(table, CORRECT, path), costs=costs)
    if len(names) < 2:
        hint = f"one column for each class, or '{ANSWER}', or '{CORRECT}', or '{CLASS}' and one of {', '.join(LONG)}"
        raise BadInput(f"beside '{ID}' it has {', '.join(names) or 'no column'}", place=str(path), hint=hint)
    values = np.stack([numbers(table, name, path) for name in names], axis=1)
    return Content(str(path), ids, "probabilities", values, names, costs=costs)


def _cost_columns(table: pa.Table) -> list[str]:
    return [name for name in table.column_names if name.startswith(COST)]


def _long(table: pa.Table, kind: str, path: Path) -> Content:
    """A row for each example and class; the costs of an example are the same on all of them."""
    (ids, rows), (classes, columns) = coded(table, ID, path), coded(table, CLASS, path)
    cells = rows * len(classes) + columns
    counts = np.bincount(cells, minlength=len(ids) * len(classes))
    if (counts != 1).any():
        row, column = divmod(int((counts != 1).argmax()), len(classes))
        often = "twice" if counts.max() > 1 and counts[row * len(classes) + column] > 1 else "never"
        raise BadInput(f"the class '{classes[column]}' of the id '{ids[row]}' stands there {often}", place=str(path))
    flat = np.empty(len(cells))
    flat[cells] = numbers(table, kind, path)
    costs = {}
    for name in _cost_columns(table):
        given = np.empty(len(cells))
        given[cells] = numbers(table, name, path)
        of_ids = given.reshape(len(ids), len(classes))
        if (differing := (of_ids != of_ids[:, :1]).any(axis=1)).any():
            place, which = str(path), ids[int(differing.argmax())]
            raise BadInput(f"'{name}' differs over the rows of the id '{which}'", place=place)
        costs[name.removeprefix(COST)] = of_ids[:, 0].copy()
    values = flat.reshape(len(ids), len(classes))
    return Content(str(path), ids, "probabilities", values, classes, LONG[kind], costs)
