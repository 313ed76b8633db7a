"""Views of tables: rows with some of the labels, or corrupted copies of all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from harness.tasks.views import View
from harness.types import Split

NOISE = 0.3
"""Standard deviation of the noise, where columns have 1."""
EVERY = 4
"""One column in so many is dropped."""


def table_views(halves: Mapping[str, tuple[int, ...]]) -> dict[str, View]:
    """The views by name, of rows [N, columns] that are standardised: those of the labels in each of ``halves``, ...

    ``noisy`` adds noise, which is always the same for the same row of the table; ``dropped`` puts the mean in place of
    one column in four, as if these had not been measured.
    """
    return {
        **{name: View(labels=labels) for name, labels in halves.items()},
        "noisy": View(corrupt=_with_noise),
        "dropped": View(corrupt=_without_columns),
    }


def _with_noise(split: Split) -> Tensor:
    """A row of the table has the noise that stands in its place in one stream, whatever split it is in."""
    rows = np.array([int(example.rpartition("-")[2]) for example in split.ids], dtype=np.int64)
    columns = split.inputs.shape[1]
    stream = np.random.default_rng(20240301).standard_normal((rows.max(initial=-1) + 1, columns), dtype=np.float32)
    return split.inputs + NOISE * torch.from_numpy(stream[rows])


def _without_columns(split: Split) -> Tensor:
    inputs = split.inputs.clone()
    inputs[:, ::EVERY] = 0.0
    return inputs
