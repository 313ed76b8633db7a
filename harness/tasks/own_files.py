"""What a suite says of a user's own labelled examples, texts or images: files, columns, and what is split off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from harness.errors import BadInput
from harness.keys import Key
from harness.strict.fields import Strict, said_as
from harness.tasks.labelled import SPLITS
from harness.tasks.task import TaskReference

DATA = "data"
"""The key of one file, or folder, of examples of all splits."""
NAMES = {
    "train": ("train", "training"),
    "heldout": ("heldout", "held_out", "held-out", "validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
"""What splits are called, in a column or by folders."""

Place = Annotated[str, Field(min_length=1)]
Column = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
PlaceOrShare = Annotated[Place | Share, said_as("a file or folder, or a share of train between 0 and 1, such as 0.2")]


class OwnFiles(Strict):
    """Files of labelled examples, relative to the suite file: one for each split, or splits are split off."""

    train: Annotated[Place | None, Field(description="a file or folder")] = None
    heldout: Annotated[
        PlaceOrShare | None, Field(description="a file or folder, or the share of train that is split off, such as 0.2")
    ] = None
    test: Annotated[PlaceOrShare | None, Field(description="as heldout")] = None
    data: Annotated[
        Place | None, Field(description="in place of train: a file with a column 'split', or a folder of splits")
    ] = None
    split: Annotated[Column | None, Field(description="the column of 'data' that says train, heldout or test")] = None
    label: Annotated[Column, Field(description="the column of labels: text, or whole numbers")] = "label"
    labels: Annotated[
        list[str | int] | None,
        Field(min_length=2, description="the names of all labels in order, where train lacks some"),
    ] = None
    id: Annotated[Column | None, Field(description="a column of ids; rows are numbered without")] = None
    cluster: Annotated[
        Column | None,
        Field(description="a column: rows of one value count as one in intervals, and no two splits share a value"),
    ] = None


@dataclass(frozen=True)
class OwnReference(TaskReference):
    """The files that a suite names, what is split off, and how columns are called."""

    places: tuple[tuple[str, str], ...]
    """Path by key: ``DATA`` or a split."""
    shares: tuple[float, float]
    """Of held-out and test, as shares of train; 0 where they are given."""
    columns: tuple[str, ...]
    """Of the examples themselves: two columns of texts make pairs."""
    label: str
    id: str | None
    cluster: str | None
    split: str | None
    labels: tuple[str, ...] | None
    fold: int = 0
    """Which of its splits, where test is split off."""
    read: Key | None = None
    """Where the examples are kept, once they were read."""
    clean: tuple[str, ...] = ()
    """The columns of the texts uncorrupted, where there are any."""


AnyOwn = TypeVar("AnyOwn", bound=OwnReference)


def refer(given: OwnFiles, columns: tuple[str, ...], of: type[AnyOwn], suite: str, folder: Path) -> AnyOwn:
    """The reference to what a suite says; ``BadInput`` where it does not say all splits, or says one twice."""
    said: Mapping[str, Any] = {key: getattr(given, key) for key in (DATA, *SPLITS)}
    if given.data is None and given.train is None:
        raise BadInput("the key 'train' is missing", hint="name a file, or one file of all splits under 'data'")
    if given.data is not None and given.train is not None:
        raise BadInput("'data' and 'train' are both there", hint="'data' is one file of all splits")
    if given.split and given.data is None:
        raise BadInput("'split' is a column of 'data'", hint="name the file under 'data', in place of 'train'")
    if given.data is None and (lacking := [split for split in SPLITS if said[split] is None]):
        hint = f"name a file, or a share of train: '{lacking[0]}: 0.2'"
        raise BadInput(f"the key '{lacking[0]}' is missing", hint=hint)
    heldout, test = (each if isinstance(each, float) else 0.0 for each in (given.heldout, given.test))
    if heldout + test >= 1:
        raise BadInput(f"{heldout:g} and {test:g} of train leave nothing to train on")
    places = tuple((key, str(folder / Path(at).expanduser())) for key, at in said.items() if isinstance(at, str))
    labels = None if given.labels is None else tuple(map(str, given.labels))
    if labels and (twice := [name for name in labels if labels.count(name) > 1]):
        raise BadInput(f"'labels' names '{twice[0]}' twice")
    return of(suite, places, (heldout, test), columns, given.label, given.id, given.cluster, given.split, labels)


def folded(reference: AnyOwn, fold: int) -> AnyOwn:
    """The reference to another split of the same data; ``BadInput`` where the test split is given."""
    if not reference.shares[1]:
        hint = "say which share of train is test, such as 'test: 0.2', or drop 'split: per_seed'"
        raise BadInput("the test split is given, so that all seeds share it", hint=hint)
    return replace(reference, fold=fold)


def split_called(name: str) -> str:
    """The split that a name stands for; ``BadInput`` where none does."""
    for split, names in NAMES.items():
        if name.strip().lower() in names:
            return split
    known = [each for names in NAMES.values() for each in names]
    raise BadInput(f"'{name}' is no split", given=name.lower(), choices=known)
