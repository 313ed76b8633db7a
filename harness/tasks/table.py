"""A table of labels by id, for pools of predictions: what was asked is not here, so no model can be run on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.errors import BadInput
from harness.keys import Key, digest, file_digest
from harness.says import Says
from harness.store import Store, read_json, write_json
from harness.strict.table import column_of, read_table, texts
from harness.tasks.task import Documents, TaskReference
from harness.types import Split

KIND = "predictions"
SPLITS = ("train", "heldout", "test")
RIGHT = ("wrong", "right")
"""The classes of a task without labels, of whose members it is known whether they are right: all labels are "right"."""
LABEL = "label"
"""The column that labels are in, unless a suite says otherwise."""
BATCH = 100_000
"""Rows that are looked up at once."""


@dataclass(frozen=True)
class LabelsReference(TaskReference):
    """The files that a suite names, and how their columns are called."""

    files: tuple[tuple[str, str], ...]
    """Path by split, in the order of ``SPLITS``; train may be missing."""
    id: str
    label: str | None
    """None: the usual one, where the files have it."""
    cluster: str | None
    classes: tuple[str, ...] | None
    """Their names, where the suite says them; else those that occur."""
    read: str = ""
    """The digest of all that was read, once it was (``rendered``)."""
    kind: ClassVar[str] = KIND


@dataclass(frozen=True, eq=False)
class LabelsTask:
    """Labels of rows by id, in two or three disjoint splits; inputs are row numbers, each of one row of all splits."""

    kind: str
    name: str
    title: str
    source: str
    class_names: tuple[str, ...]
    says: Says
    """"correctness" where the table has no labels: the classes are wrong and right, and every label is right."""
    ids: tuple[str, ...]
    """Of all rows: train, held-out and test, without regard to a limit."""
    rows: str
    """The digest of the ids and the classes: what predictions of it were joined by."""
    train: Split
    heldout: Split
    test: Split
    digest: str
    clusters: tuple[str, ...]
    """Of each test row; empty where every row counts as one."""

    @property
    def shape(self) -> Mapping[str, int]:
        return {"classes": len(self.class_names)}

    @property
    def documents(self) -> Documents:
        """The test rows."""
        seen = set(self.heldout.labels.tolist())
        absent = [name for k, name in enumerate(self.class_names) if k not in seen and self.says != "correctness"]
        notes = [f"no held-out row is of the class '{name}': what is fitted knows nothing of it" for name in absent]
        tasks = [self.name] * len(self.test)
        return Documents(
            self.test.ids, tasks, self.test.labels, len(self.class_names), notes, self.clusters[: len(self.test)]
        )

    @property
    def groups(self) -> Collection[str]:
        return ()

    def of_groups(self, groups: tuple[str, ...]) -> LabelsTask:
        return self


def rendered(reference: LabelsReference, store: Store) -> LabelsReference:
    """The reference with the digest of what was read; the tables are checked, and kept.

    Raises:
        BadInput: a file that cannot be read, a column that is missing, an id twice or in two splits, rows without a
            label, or fewer than two classes.
    """
    key = _key(reference)
    if not store.has(key):
        record, labels = _read(reference)
        with store.write(key) as folder:
            write_json(folder / "table.json", record)
            save_file(labels, folder / "labels.safetensors")
    return replace(reference, read=key.digest)


def _key(reference: LabelsReference) -> Key:
    return Key.of("table", code=__name__, content=_content(reference))


def _content(reference: LabelsReference) -> str:
    """The digest of the files' content and settings, wherever they lie."""
    files = []
    for split, path in reference.files:
        if not Path(path).is_file():
            raise BadInput("there is no such file", place=path)
        files.append([split, file_digest(Path(path)), Path(path).suffix])
    return digest([files, reference.id, reference.label, reference.cluster, reference.classes])


def _read(reference: LabelsReference) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """JSON values, and the labels of each split."""
    tables = {split: (read_table(Path(path)), Path(path)) for split, path in reference.files}
    ids = {split: texts(table, reference.id, path) for split, (table, path) in tables.items()}
    _check_ids(ids, reference)
    clusters = texts(*_at(tables["test"], reference.cluster)) if reference.cluster else []
    column = reference.label or LABEL
    labelled = [split for split, (table, _) in tables.items() if column in table.column_names]
    if not labelled and reference.label is None:
        record = {"ids": ids, "classes": RIGHT, "says": "correctness", "clusters": clusters}
        return record, {split: torch.ones(len(of), dtype=torch.int64) for split, of in ids.items()}
    named = {split: texts(*_at(tables[split], column)) for split in tables}
    classes = _classes(named, reference)
    place = {name: position for position, name in enumerate(classes)}
    labels = {split: torch.tensor([place[name] for name in of], dtype=torch.int64) for split, of in named.items()}
    return {"ids": ids, "classes": classes, "says": "probabilities", "clusters": clusters}, labels


def _at(table: tuple[Any, Path], column: str) -> tuple[Any, str, Path]:
    _ = column_of(table[0], column, table[1])
    return table[0], column, table[1]


def _check_ids(ids: Mapping[str, Sequence[str]], reference: LabelsReference) -> None:
    paths = dict(reference.files)
    seen: dict[str, str] = {}
    for split, of in ids.items():
        for name in of:
            if name in seen:
                words = "twice" if seen[name] == split else f"among the {_WORDS[seen[name]]} rows too"
                raise BadInput(f"the id '{name}' of a {_WORDS[split]} row stands there {words}", place=paths[split])
            seen[name] = split


_WORDS = {"train": "training", "heldout": "held-out", "test": "test"}


def _classes(named: Mapping[str, Sequence[str]], reference: LabelsReference) -> list[str]:
    """The names of the classes, in order: by number where all are whole numbers, else by text."""
    found = {name: split for split, of in named.items() for name in of}
    classes = sorted(found) if reference.classes is None else list(reference.classes)
    if strays := sorted(set(found) - set(classes)):
        words = f"the label '{strays[0]}' is none of the classes that the suite names"
        raise BadInput(words, place=dict(reference.files)[found[strays[0]]], choices=classes)
    if len(classes) < 2:
        words = f"all labels are '{classes[0]}': there is nothing to tell apart"
        raise BadInput(words, place=dict(reference.files)["test"], hint="name the classes under 'table: classes'")
    numbered = all(name.isascii() and name.isdigit() for name in classes)
    return sorted(classes, key=int) if numbered else sorted(classes)


def load(reference: LabelsReference, store: Store, limit: int | None = None) -> LabelsTask:
    """The task; ``limit`` keeps the first test rows. ``BadInput`` where files were changed since they were read."""
    key = _key(reference)
    if rendered(reference, store).read != (reference.read or key.digest):
        place, hint = dict(reference.files)["test"], "run again"
        raise BadInput("the files of the task were changed since the run was planned", place=place, hint=hint)
    record = read_json(store.read(key) / "table.json")
    labels = load_file(store.read(key) / "labels.safetensors")
    classes, identity = tuple(record["classes"]), key.digest
    everyone = [name for split in SPLITS for name in record["ids"].get(split, ())]
    splits, begin = {}, 0
    for split in SPLITS:
        ids = record["ids"].get(split, [])
        rows = torch.arange(begin, begin + len(ids))
        begin += len(ids)
        kept = limit if split == "test" else None
        of = labels.get(split, torch.zeros(0, dtype=torch.int64))[:kept]
        digested = digest([identity, split, len(of)])
        splits[split] = Split(split, rows[:kept], of, ids[:kept], digested, batch=BATCH, kind=KIND)
    names = {split: Path(path).name for split, path in reference.files}
    return LabelsTask(
        KIND,
        reference.name,
        f"labels by id: {len(splits['heldout'])} held-out and {len(splits['test'])} test rows",
        ", ".join(f"{split}: {name}" for split, name in names.items()) + f"; sha256 {_content(reference)[:16]}",
        classes,
        record["says"],
        tuple(everyone),
        digest([everyone, classes]),
        splits["train"],
        splits["heldout"],
        splits["test"],
        digest([identity, limit]),
        tuple(record["clusters"]),
    )
