"""A file of one model's predictions from anywhere: read, joined by id and by class, and checked row by row."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from harness.errors import BadInput
from harness.models.lookup import one_hot
from harness.strict.table import ENDINGS, check_file, coded, numbers, read_table, texts, unreadable
from harness.types import Says

Form = Literal["probabilities", "log_probabilities", "logits"]
FORMS: tuple[Form, ...] = get_args(Form)
TOLERANCE = 1e-3
"""How far the probabilities of a row may sum from 1, since files hold rounded numbers; they are normalised then."""
LONG: dict[str, Form] = {"probability": "probabilities", "log_probability": "log_probabilities", "logit": "logits"}
"""The columns of a long table (a row for each example and class) that hold the numbers."""
ID, CLASS, ANSWER, CORRECT, COST = "id", "class", "answer", "correct", "cost_"
NPZ = ".npz"
BROKEN = (zipfile.BadZipFile, ValueError, OSError, EOFError, KeyError, NotImplementedError, zipfile.zlib.error)  # type: ignore[attr-defined]


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
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
    except BROKEN as error:
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
            raise BadInput(f"'{name}' has the shape {list(arrays[name].shape)}, not {shape} of {len(ids)} ids", place=place)
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
    values = np.empty(len(cells))
    values[cells] = numbers(table, kind, path)
    costs = {}
    for name in _cost_columns(table):
        given = np.empty(len(cells))
        given[cells] = numbers(table, name, path)
        of_ids = given.reshape(len(ids), len(classes))
        if (differing := (of_ids != of_ids[:, :1]).any(axis=1)).any():
            place, which = str(path), ids[int(differing.argmax())]
            raise BadInput(f"'{name}' differs over the rows of the id '{which}'", place=place)
        costs[name.removeprefix(COST)] = of_ids[:, 0].copy()
    values = values.reshape(len(ids), len(classes))
    return Content(str(path), ids, "probabilities", values, classes, LONG[kind], costs)


@dataclass(frozen=True, eq=False)
class Joined:
    """What a model says of a task's rows."""

    log_probs: Tensor
    """[rows, C] float32, normalised, the classes in the task's order."""
    costs: dict[str, Tensor]
    """[rows] float64, by name."""


def join(
    content: Content,
    ids: Sequence[str],
    classes: Sequence[str],
    says: Says,
    form: Form | None = None,
    floor: float | None = None,
) -> Joined:
    """A file's content in the order of a task's rows and classes.

    Args:
        content: as read.
        ids: of the task's rows.
        classes: the names of the task's classes.
        says: "correctness" where the task has no labels.
        form: what the numbers are, where the suite says it.
        floor: the least probability that a class has; the others are scaled down for it.

    Raises:
        BadInput: other ids or classes, numbers that are none of the form, or a form that cannot be told.
    """
    if (content.says == "correctness") != (says == "correctness"):
        has, lacks = ("no labels", f"'{CORRECT}'") if says == "correctness" else ("labels", "answers or probabilities")
        raise BadInput(f"the task has {has}, and the file no {lacks}", place=content.place)
    order = _order(content, ids)
    costs = {name: torch.from_numpy(_costs(content, name)[order]) for name in content.costs}
    if content.says != "probabilities":
        if form or floor:
            key = "form" if form else "floor"
            raise BadInput(f"'{key}' is of probabilities, which the file does not have", place=content.place)
        answers = _answers(content, classes)[order]
        return Joined(one_hot(torch.from_numpy(answers), len(classes)), costs)
    if form and content.form and form != content.form:
        raise BadInput(f"the file says {content.form}, and the suite {form}", place=content.place)
    values = content.values[:, _columns(content, classes)]
    chosen = content.form or form or _recognised(content)
    log_probs = torch.from_numpy(_CHECKED[chosen](content, values)[order])
    if floor:
        raised = log_probs.exp().clamp(min=floor)
        log_probs = (raised / raised.sum(dim=1, keepdim=True)).log()
    return Joined(log_probs.float(), costs)


def _order(content: Content, ids: Sequence[str]) -> np.ndarray:
    """Where the task's rows are among the file's."""
    place = {name: row for row, name in enumerate(content.ids)}
    if len(place) < len(content.ids):
        twice = next(name for row, name in enumerate(content.ids) if place[name] != row)
        raise BadInput(f"the id '{twice}' stands there twice", place=content.place)
    known = set(ids)
    extra = [name for name in content.ids if name not in known]
    missing = [name for name in ids if name not in place]
    if not (extra or missing):
        return np.array([place[name] for name in ids])
    words = [f"{len(missing)} of the task's {len(ids)} ids are missing, such as '{missing[0]}'"] if missing else []
    words += [f"{len(extra)} ids are none of the task's, such as '{extra[0]}'"] if extra else []
    numbered = extra and extra[0].endswith(".0") and extra[0][:-2] in known
    hint = "ids are joined by their text: '7.0' is not '7'" if numbered else None
    raise BadInput("; ".join(words), place=content.place, hint=hint)


def _columns(content: Content, classes: Sequence[str]) -> list[int]:
    """Where the task's classes are among the file's."""
    if content.classes is None:
        count = content.values.shape[1]
        if list(classes) != [str(k) for k in range(count)]:
            words = f"the file does not name its {count} classes, and those of the task are {_named(classes)}"
            raise BadInput(words, place=content.place, hint="unnamed classes are the task's only where these are "
                           f"0 to {count - 1}: add an array 'classes'")  # fmt: skip
        return list(range(count))
    if twice := [name for name in content.classes if content.classes.count(name) > 1]:
        raise BadInput(f"the class '{twice[0]}' is there twice", place=content.place)
    if strays := sorted(set(content.classes) - set(classes)):
        hint = "name the task's classes under 'table: classes' where some have no row"
        raise BadInput(f"it has the class '{strays[0]}', and the task has {_named(classes)}", place=content.place, hint=hint)
    if missing := [name for name in classes if name not in content.classes]:
        raise BadInput(f"it lacks the class '{missing[0]}' of the task, and has {_named(content.classes)}",
                       place=content.place)  # fmt: skip
    return [content.classes.index(name) for name in classes]


def _named(classes: Sequence[str]) -> str:
    return ", ".join(classes[:10]) + (f" and {len(classes) - 10} more" if len(classes) > 10 else "")


def _answers(content: Content, classes: Sequence[str]) -> np.ndarray:
    """The class [N] of each answer; right and wrong are the classes 1 and 0."""
    if content.says == "correctness":
        if odd := [row for row, value in enumerate(content.values) if value not in (0, 1)]:
            value, name = content.values[odd[0]], content.ids[odd[0]]
            raise BadInput(f"'{CORRECT}' is 0 or 1, and of the id '{name}' it is {value:g}", place=content.place)
        return content.values.astype(np.int64)
    assert content.classes is not None
    known = {name: position for position, name in enumerate(classes)}
    if strays := [name for name in content.classes if name not in known]:
        hint = "name all that members answer under 'table: classes'"
        raise BadInput(f"the answer '{strays[0]}' is none of the task's classes {_named(classes)}",
                       place=content.place, hint=hint)  # fmt: skip
    return np.array([known[name] for name in content.classes], np.int64)[content.values]


def _costs(content: Content, name: str) -> np.ndarray:
    values = np.asarray(content.costs[name], np.float64)
    if odd := [row for row, value in enumerate(values) if not 0 <= value < np.inf]:
        words = f"'{COST}{name}' of the id '{content.ids[odd[0]]}' is {values[odd[0]]:g}"
        raise BadInput(f"{words}, and costs are numbers from 0", place=content.place)
    if not name.isidentifier():
        raise BadInput(f"the cost '{name}' has no plain name", place=content.place, hint="letters, digits and _")
    return values


def _sums(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return values.sum(axis=1)


def _recognised(content: Content) -> Form:
    """The form of the numbers, where nobody says it: probabilities, or log-probabilities, by signs and sums."""
    values = content.values
    with np.errstate(over="ignore", invalid="ignore"):
        if (values >= 0).all() and (np.abs(_sums(values) - 1) <= TOLERANCE).all():
            return "probabilities"
        if (values <= 0).all() and (np.abs(_sums(np.exp(values)) - 1) <= TOLERANCE).all():
            return "log_probabilities"
    if ((values >= 0) & (values <= 1)).all():
        _probabilities(content, values)  # says which row is wrong
    raise BadInput("what the numbers are cannot be told: neither they nor their exponentials sum to 1 in each row",
                   place=content.place, hint="say it: {file: ..., form: logits}, or another of " + ", ".join(FORMS))  # fmt: skip


def _refuse(content: Content, wrong: np.ndarray, words: Callable[[int], str]) -> None:
    if wrong.any():
        row = int(wrong.argmax())
        more = f" ({int(wrong.sum())} rows are so)" if wrong.sum() > 1 else ""
        raise BadInput(f"of the id '{content.ids[row]}' {words(row)}{more}", place=content.place)


def _probabilities(content: Content, values: np.ndarray) -> np.ndarray:
    _refuse(content, ~np.isfinite(values).all(axis=1), lambda row: "a probability is NaN or infinite")
    _refuse(content, (values < 0).any(axis=1), lambda row: f"a probability is {values[row].min():g}")
    sums = _sums(values)
    _refuse(content, np.abs(sums - 1) > TOLERANCE,
            lambda row: f"the probabilities sum to {sums[row]:.6g}, not to 1 within {TOLERANCE:g}")  # fmt: skip
    with np.errstate(divide="ignore"):
        return np.log(values / sums[:, None])


def _log_probabilities(content: Content, values: np.ndarray) -> np.ndarray:
    _refuse(content, (np.isnan(values) | (values == np.inf)).any(axis=1), lambda row: "a log-probability is NaN or +inf")
    with np.errstate(over="ignore"):
        sums = _sums(np.exp(values))
    _refuse(content, ~(np.abs(sums - 1) <= TOLERANCE),
            lambda row: f"the exponentials of log-probabilities sum to {sums[row]:.6g}, not to 1 within {TOLERANCE:g}")  # fmt: skip
    return values - np.log(sums[:, None])


def _logits(content: Content, values: np.ndarray) -> np.ndarray:
    broken = np.isnan(values) | (values == np.inf)
    _refuse(content, broken.any(axis=1), lambda row: "a logit is NaN or +inf")
    _refuse(content, np.isneginf(values).all(axis=1), lambda row: "all logits are -inf")
    return np.asarray(torch.log_softmax(torch.from_numpy(values), dim=1).numpy())


_CHECKED: dict[Form, Callable[[Content, np.ndarray], np.ndarray]] = {
    "probabilities": _probabilities,
    "log_probabilities": _log_probabilities,
    "logits": _logits,
}
"""Log-probabilities [N, C] in float64 from numbers [N, C] of each form."""


def describe(content: Content) -> dict[str, Any]:
    """What a file turned out to be, for messages and reports."""
    return {"rows": len(content.ids), "says": content.says, "costs": sorted(content.costs)}
