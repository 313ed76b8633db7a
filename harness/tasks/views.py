"""Views of labelled examples: those of some labels only, or corrupted copies of all. Fine-tunes on these conflict."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.keys import digest
from harness.types import Split


@dataclass(frozen=True)
class View:
    """Which examples of a split are seen, and how."""

    labels: tuple[int, ...] | None = None
    """The labels that are kept; all of them if None."""
    corrupt: Callable[[Split], Tensor] | None = None
    """The inputs [N, ...] that are seen instead of a split's; untouched if None."""

    def rows(self, labels: Tensor) -> Tensor:
        """The positions [n] of the examples that are seen, among all with these labels [N]."""
        kept = torch.ones_like(labels, dtype=torch.bool)
        if self.labels is not None:
            kept = torch.isin(labels, torch.tensor(self.labels))
        return kept.nonzero().flatten()


def seen(split: Split, name: str, view: View) -> Split:
    """A split as one view shows it, in the split's order."""
    rows = view.rows(split.labels)
    kept = replace(
        split, inputs=split.inputs[rows], labels=split.labels[rows], ids=[split.ids[row] for row in rows.tolist()]
    )
    return with_digest(
        replace(
            kept,
            inputs=kept.inputs if view.corrupt is None else view.corrupt(kept),
            ids=[f"{example}-{name}" for example in kept.ids],
            groups=[name] * len(kept),
        )
    )


def with_digest(split: Split) -> Split:
    """A split with the digest of what is in it: its name, inputs, labels and ids."""
    tensors = [hashlib.sha256(each.numpy().tobytes()).hexdigest() for each in (split.inputs, split.labels)]
    shapes = [str(split.inputs.dtype), list(split.inputs.shape)]
    return replace(split, digest=digest([split.name, *shapes, *tensors, list(split.ids)]))


def mixture(views: Sequence[Split]) -> Split:
    """Views of one split in equal shares, one example of each in turn; all are cut to the size of the smallest.

    So every part from the start has the same shares too, and a score on it is the mean over the views.
    """
    count = min(len(view) for view in views)
    return replace(
        views[0],
        inputs=torch.stack([view.inputs[:count] for view in views], dim=1).flatten(0, 1),
        labels=torch.stack([view.labels[:count] for view in views], dim=1).flatten(),
        ids=[view.ids[i] for i in range(count) for view in views],
        digest=digest([view.digest for view in views]),
        groups=[view.groups[i] for i in range(count) for view in views],
    )
