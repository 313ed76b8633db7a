"""Views of images: those of some labels only, or corrupted copies of all. Fine-tunes on different ones conflict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from harness.store import digest
from harness.types import Split


@dataclass(frozen=True)
class View:
    """Which images of a split are seen, and how."""

    labels: tuple[int, ...] | None = None
    """The labels that are kept; all of them if None."""
    corrupt: Callable[[Tensor], Tensor] | None = None
    """What is done to pixels [N, 1, side, side], from 0 (black) to 1 (white)."""

    def rows(self, labels: Tensor) -> Tensor:
        """The positions [n] of the images that are seen, among all with these labels [N]."""
        kept = torch.ones_like(labels, dtype=torch.bool)
        if self.labels is not None:
            kept = torch.isin(labels, torch.tensor(self.labels))
        return kept.nonzero().flatten()


def _blur(pixels: Tensor) -> Tensor:
    """The mean of 5 x 5 pixels, black beyond the border."""
    return functional.avg_pool2d(pixels, 5, stride=1, padding=2)


VIEWS = {
    "labels_0_4": View(labels=(0, 1, 2, 3, 4)),
    "labels_5_9": View(labels=(5, 6, 7, 8, 9)),
    "inverted": View(corrupt=lambda pixels: 1 - pixels),
    "blurred": View(corrupt=_blur),
}


def seen(split: Split, name: str, black: float, white: float) -> Split:
    """A split as one view shows it, in the split's order; ``black`` and ``white`` are these in its inputs."""
    view = VIEWS[name]
    rows = view.rows(split.labels)
    inputs = split.inputs[rows]
    if view.corrupt is not None:
        inputs = view.corrupt((inputs - black) / (white - black)) * (white - black) + black
    return replace(
        split,
        inputs=inputs,
        labels=split.labels[rows],
        ids=[f"{split.ids[row]}-{name}" for row in rows.tolist()],
        digest=digest([split.digest, name]),
        groups=[name] * len(rows),
    )


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
