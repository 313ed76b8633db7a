"""A user's texts with one label each, from files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from harness.store import Store, file_digest
from harness.tasks.labelled import SPLITS, LabelledTask
from harness.tasks.raw_task import Examples, keep, kept
from harness.tasks.task import TaskReference

KIND = "texts"


@dataclass(frozen=True)
class TextsReference(TaskReference):
    """Files of texts, and the columns to read."""

    train: str
    heldout: str
    test: str
    text: tuple[str, ...]
    """One column, or two whose texts make a pair."""
    label: str
    kind: ClassVar[str] = KIND


def load(reference: TextsReference, store: Store, limit: int | None = None) -> LabelledTask:
    """The texts of a suite's files; of test only the first ``limit``."""
    files = {split: getattr(reference, split) for split in SPLITS}
    identity = {"files": {split: file_digest(file) for split, file in files.items()}, "text": reference.text,
                "label": reference.label}  # fmt: skip
    splits = {split: _read(file, reference, split) for split, file in files.items()}
    key = keep(splits, identity, store)
    return kept(key, KIND, reference.name, f"texts of {reference.test}", reference.test, store, limit)


def _read(file: str, reference: TextsReference, split: str) -> Examples:
    table = pd.read_csv(file)
    texts = table[list(reference.text)].astype(str).to_numpy().tolist()
    contents = [json.dumps(each, ensure_ascii=False).encode() for each in texts]
    ids = [f"{split}-{row}" for row in range(len(table))]
    return Examples(ids, contents, table[reference.label].astype(str).tolist())
