"""What a model's file says, in the order of a task's rows and classes, and checked row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor

from harness.errors import BadInput
from harness.models.lookup import one_hot
from harness.models.prediction_file import CORRECT, COST, FORMS, Content, Form
from harness.says import Says

TOLERANCE = 1e-3
"""How far the probabilities of a row may sum from 1, since files hold rounded numbers; they are normalised then."""


@dataclass(frozen=True, eq=False)
class Joined:
    """What a model says of a task's rows."""

    log_probs: Tensor
    """[rows, C] float32, normalised, the classes in the task's order."""
    costs: dict[str, Tensor]
    """[rows] float64, by name."""
    says: Says
    """What is known of its answers."""


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
        return Joined(one_hot(torch.from_numpy(answers), len(classes)), costs, content.says)
    if form and content.form and form != content.form:
        raise BadInput(f"the file says {content.form}, and the suite {form}", place=content.place)
    values = content.values[:, _columns(content, classes)]
    chosen = content.form or form or _recognised(content)
    log_probs = _CHECKED[chosen](content, values)[order]
    if floor:
        raised = np.maximum(np.exp(log_probs), floor)
        log_probs = np.log(raised / raised.sum(axis=1, keepdims=True))
    return Joined(torch.from_numpy(log_probs.astype(np.float32)), costs, "probabilities")


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
        words = f"it has the class '{strays[0]}', and the task has {_named(classes)}"
        raise BadInput(words, place=content.place, hint=hint)
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
    """Of each row [N]."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values.sum(axis=1))


def _recognised(content: Content) -> Form:
    """The form of the numbers, where nobody says it: probabilities, or log-probabilities, by signs and sums."""
    values = content.values
    if _are_probabilities(values):
        return "probabilities"
    with np.errstate(over="ignore", invalid="ignore"):
        if (values <= 0).all() and (np.abs(_sums(np.exp(values)) - 1) <= TOLERANCE).all():
            return "log_probabilities"
    if ((values >= 0) & (values <= 1)).all():
        _probabilities(content, values)  # says which row is wrong
    hint = f"say it: {{file: ..., form: logits}}, or another of {', '.join(FORMS)}"
    words = "what the numbers are cannot be told: neither they nor their exponentials sum to 1 in each row"
    raise BadInput(words, place=content.place, hint=hint)


def _are_probabilities(values: np.ndarray) -> bool:
    return bool((values >= 0).all() and (np.abs(_sums(values) - 1) <= TOLERANCE).all())


def _refuse(content: Content, wrong: Any, words: Callable[[int], str]) -> None:
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
    broken = (np.isnan(values) | (values == np.inf)).any(axis=1)
    _refuse(content, broken, lambda row: "a log-probability is NaN or +inf")
    with np.errstate(over="ignore"):
        sums = _sums(np.exp(values))
    _refuse(content, ~(np.abs(sums - 1) <= TOLERANCE),
            lambda row: f"the exponentials sum to {sums[row]:.6g}, not to 1 within {TOLERANCE:g}")  # fmt: skip
    return values - np.log(sums[:, None])


def _logits(content: Content, values: np.ndarray) -> np.ndarray:
    broken = np.isnan(values) | (values == np.inf)
    _refuse(content, broken.any(axis=1), lambda row: "a logit is NaN or +inf")
    _refuse(content, np.isneginf(values).all(axis=1), lambda row: "all logits are -inf")
    if _are_probabilities(values):
        problem = "its logits are from 0 to 1 and sum to 1 in every row, as probabilities do"
        raise BadInput(problem, place=content.place, hint="say it: {file: ..., form: probabilities}")
    return np.asarray(log_softmax(values, axis=1))


_CHECKED: dict[Form, Callable[[Content, np.ndarray], np.ndarray]] = {
    "probabilities": _probabilities,
    "log_probabilities": _log_probabilities,
    "logits": _logits,
}
"""Log-probabilities [N, C] in float64 from numbers [N, C] of each form."""
