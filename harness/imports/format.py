"""What a format of predictions declares, what there is, and how the format of given files is recognised."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import BadInput
from harness.imports.files import is_pickle, reading_source
from harness.imports.imported import Imported
from harness.registry import FORMATS


@dataclass(frozen=True)
class Given:
    """A file or folder as the user names it."""

    path: Path
    member: str | None = None
    """Whose predictions it holds, where the user says so with NAME=PATH."""


@dataclass(frozen=True)
class Asked:
    """What the user says besides the files; None where nothing is said."""

    metric: str | None = None
    """By which score an answer is right, such as ``exact_match`` or ``exact_match,strict-match``."""
    tasks: tuple[str, ...] = ()
    """Only these of the source's tasks."""
    threshold: float | None = None
    """A fractional score of at least this is right."""
    form: Literal["probabilities", "correct"] | None = None


Taken = Literal["metric", "tasks", "threshold", "member"]
WORDS: Mapping[Taken, str] = {
    "metric": "--metric", "tasks": "--task", "threshold": "--threshold", "member": "NAME=PATH",
}  # fmt: skip


@dataclass(frozen=True)
class Format:
    """One declared format: its file declares it once, and everybody else reads the declaration."""

    name: str
    summary: str
    """What it is and what is taken from it, in one line."""
    recognises: Callable[[Path], bool]
    """Whether a file or folder is of the format, by its content."""
    read: Callable[[Sequence[Given], Asked], Imported]
    takes: tuple[Taken, ...] = ()
    """What the user may say besides the files; a member's name goes with files of one member each."""
    unpickle: str | None = None
    """What to run where the format's pickle was made, so that there is a file that can be read here."""
    module: str = ""


def choose_format(given: Sequence[Given], name: str | None) -> Format:
    """The format of all that is given: the one that is named, or the one that recognises each of it.

    A pickle is refused whatever it holds, with what to run instead.
    """
    for each in given:
        if not each.path.exists():
            raise BadInput("there is no such file or folder", place=str(each.path))
        if is_pickle(each.path):
            problem = "a pickle can run code when it is read, so it is not read"
            raise BadInput(problem, place=str(each.path), hint=_instead(name))
    if name is not None:
        return FORMATS.get(name)
    chosen = {each.path: _names_of(each.path) for each in given}
    for path, names in chosen.items():
        if not names:
            raise BadInput("no known format of predictions", place=str(path), choices=FORMATS.all(),
                           hint="name it with --format")  # fmt: skip
        if len(names) > 1:
            raise BadInput("several formats fit", place=str(path), choices=names, hint="name one with --format")
    formats = {names[0]: path for path, names in chosen.items()}
    if len(formats) > 1:
        both = ", ".join(f"{path} is {name}" for name, path in formats.items())
        raise BadInput(f"files of several formats: {both}", hint="import each format on its own")
    return FORMATS.get(next(iter(formats)))


def _names_of(path: Path) -> list[str]:
    with reading_source(str(path)):
        return [form.name for form in FORMATS if form.recognises(path)]


def _instead(name: str | None) -> str:
    """What to run where the pickle was made."""
    formats = [FORMATS.get(name)] if name is not None else list(FORMATS)
    ways = [f"{each.name}: {each.unpickle}" for each in formats if each.unpickle]
    return "where you trust it, run " + "; or ".join(ways) if ways else "give a format that is no pickle"


def read_given(given: Sequence[Given], form: Format, asked: Asked) -> Imported:
    """The predictions in the given files; every fault of the source is one line."""
    _refuse_untaken(given, form, asked)
    with reading_source(str(given[0].path)):
        imported = form.read(given, asked)
        imported.check(form.name)
    if asked.form == "probabilities" and imported.form == "correct":
        raise BadInput("the source has no probabilities", place=form.name, hint="leave '--as probabilities' out")
    if asked.form == "correct":
        imported = imported.outcomes()
    if len(imported.members) == 1:
        imported.notes.append("there is one member only, so nothing to combine it with")
    return imported


def _refuse_untaken(given: Sequence[Given], form: Format, asked: Asked) -> None:
    said: dict[Taken, bool] = {
        "metric": asked.metric is not None,
        "tasks": bool(asked.tasks),
        "threshold": asked.threshold is not None,
        "member": any(each.member is not None for each in given),
    }
    for option, is_said in said.items():
        if is_said and option not in form.takes:
            raise BadInput(f"nothing in this format goes by {WORDS[option]}", place=form.name, hint="leave it out")
