"""A user's images with one label each, from files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from harness.store import Store, file_digest
from harness.tasks.labelled import SPLITS, LabelledTask
from harness.tasks.raw_task import Examples, keep, kept
from harness.tasks.task import TaskReference

KIND = "image_files"


@dataclass(frozen=True)
class ImagesReference(TaskReference):
    """Files of images, and the columns to read."""

    train: str
    heldout: str
    test: str
    image: str
    """The column with the bytes of image files."""
    label: str
    kind: ClassVar[str] = KIND


def load(reference: ImagesReference, store: Store, limit: int | None = None) -> LabelledTask:
    """The images of a suite's files; of test only the first ``limit``."""
    files = {split: getattr(reference, split) for split in SPLITS}
    identity = {"files": {split: file_digest(file) for split, file in files.items()}, "image": reference.image,
                "label": reference.label}  # fmt: skip
    splits = {split: _read(file, reference, split) for split, file in files.items()}
    key = keep(splits, identity, store)
    return kept(key, KIND, reference.name, f"images of {reference.test}", reference.test, store, limit)


def _read(file: str, reference: ImagesReference, split: str) -> Examples:
    table = pd.read_parquet(file)
    contents = table[reference.image].tolist()
    ids = [f"{split}-{row}" for row in range(len(table))]
    return Examples(ids, contents, table[reference.label].astype(str).tolist())
