"""Tasks of labelled examples: one label each, in three stratified splits, and views that members are tuned on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from harness.keys import digest
from harness.tasks.task import Documents
from harness.tasks.views import View, mixture, seen, with_digest
from harness.types import Split

SPLITS = ("train", "heldout", "test")


@dataclass(frozen=True, eq=False)
class LabelledTask:
    """Labelled examples in three disjoint, stratified splits; methods see train and held-out only.

    The task of a pool whose members were trained on views has train and held-out in equal shares of these, so that
    what methods choose goes by all of them; its test split stays plain.
    """

    kind: str
    name: str
    title: str
    source: str
    classes: int
    shape: Mapping[str, int]
    """The options that every architecture needs."""
    train: Split
    heldout: Split
    test: Split
    digest: str
    known_views: Mapping[str, View]
    """The views of such examples, by name."""
    labels: tuple[str, ...] = ()
    """The names of the labels, in order, where they have any."""
    clusters: tuple[str, ...] = ()
    """Of test's examples, as ``Documents.clusters``."""
    notes: tuple[str, ...] = ()
    """As ``Documents.notes``."""
    views: tuple[str, ...] = ()
    """The views that train and held-out are made of, and that are scored besides test."""

    @property
    def documents(self) -> Documents:
        """The test examples."""
        tasks = [self.name] * len(self.test)
        return Documents(self.test.ids, tasks, self.test.labels, self.classes, self.notes, self.clusters)

    @property
    def groups(self) -> Collection[str]:
        """The views."""
        return self.known_views

    def of_groups(self, groups: tuple[str, ...]) -> LabelledTask:
        if not groups:
            return self
        train, heldout = (mixture([self.seen(split, g) for g in groups]) for split in (self.train, self.heldout))
        return replace(self, train=train, heldout=heldout, digest=digest([self.digest, *groups]), views=groups)

    def seen(self, split: Split, view: str) -> Split:
        """One of the plain splits as a view shows it."""
        return seen(split, view, self.known_views[view])


def stratified_rows(labels: np.ndarray, sizes: tuple[int, int, int] | np.ndarray, fold: int = 0) -> tuple[Tensor, ...]:
    """Row numbers of the three splits: so many of each class, drawn once for all folds, then shuffled.

    Each class goes round: a fold's test examples are the ones after those of the fold before. So on any number of
    folds no example is test more than once more than another of its class.

    Args:
        labels: [N].
        sizes: examples per class in train, held-out and test: [3] of every class, or [C, 3].
        fold: which split, from 0.
    """
    rng = np.random.default_rng(20240229)
    drawn = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    of_each = np.broadcast_to(sizes, (len(drawn), len(SPLITS)))
    per_class = [np.roll(rows, -fold * size[2]) for rows, size in zip(drawn, of_each, strict=True)]
    edges = np.cumsum(np.pad(of_each, ((0, 0), (1, 0))), axis=1)  # [C, 4]
    return tuple(
        torch.from_numpy(
            rng.permutation(
                np.concatenate([rows[edge[k] : edge[k + 1]] for rows, edge in zip(per_class, edges, strict=True)])
            )
        )
        for k in range(len(SPLITS))
    )


def shared_out(counts: np.ndarray, sizes: tuple[int, int, int]) -> np.ndarray:
    """How many examples of each class make splits of these sizes, int [C, 3]: each class its share, to within three.

    Args:
        counts: [C] examples of each class.
        sizes: of train, held-out and test; together not more than there are.
    """
    left, parts = counts, []
    for size in reversed(sizes):
        upto = np.pad(np.cumsum(left), (1, 0))
        parts.append(np.diff(upto * size // max(upto[-1], 1)))  # so rounding never adds up over classes
        left = left - parts[-1]
    return np.stack(parts[::-1], axis=1)


def make_splits(
    task: str, kind: str, inputs: Tensor, labels: Tensor, rows: Sequence[Tensor]
) -> tuple[Split, Split, Split]:
    """The splits with these row numbers of a source, each example with an id that says its row.

    Their digests are of what is in them, whatever code made it: a baseline stays one with a newer Stockpot.

    Args:
        task: the task's name.
        kind: the name of its kind.
        inputs: [N, ...] of the whole source.
        labels: [N].
        rows: for train, held-out and test.
    """
    train, heldout, test = (
        with_digest(Split(name, inputs[row].contiguous(), labels[row], [f"{task}-{i}" for i in row.tolist()], "",
                          kind=kind))
        for name, row in zip(SPLITS, rows, strict=True)
    )  # fmt: skip
    return train, heldout, test
