"""Which row of which model each token has, where models have other tokens than one another.

Source: mergekit 0.1.5, ``mergekit/tokenizer/embed.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

ZERO, MEAN = -1, -2
"""In place of the number of a model: a row of zeros, and the mean of the rows of all models that have the token."""


@dataclass(frozen=True)
class Wanted:
    """The tokens that all models are to have."""

    ids: np.ndarray
    """[models, tokens] the row that each model has for a token, -1 for none."""
    rules: Mapping[int, tuple[int, int]]
    """For tokens by number, the model and the row of it that those get which lack the token; ``ZERO`` for no model."""
    forced: Sequence[int]
    """Tokens whose rule is for all models."""
    padding: int


@dataclass(frozen=True)
class Rows:
    """Of one tensor, which rows a model's copy has; models are numbered."""

    owner: np.ndarray
    """[tokens] the model that each row is from, or ``ZERO`` or ``MEAN``."""
    row: np.ndarray
    """[tokens] and its number there."""
    ids: np.ndarray
    """[models, tokens] the row that each model has for a token, -1 for none: what means are of."""
    padding: int = 0
    """How many rows follow, each the mean of all others."""

    def is_all_of(self, model: int, rows: int) -> bool:
        """Whether they are just the rows of a model's tensor, in its order."""
        import numpy as np

        same = not self.padding and len(self.row) == rows and (self.owner == model).all()
        return bool(same and (self.row == np.arange(rows)).all())


def rows_for_lacking(wanted: Wanted, models: Sequence[int], base: int | None) -> Rows:
    """What models get for a token that they lack: what a rule says, else the row of the one model that has it, else the
    base's, else the mean over those that do; zeros where none has it.

    Args:
        wanted: of all models.
        models: those that have the tensor.
        base: one of the models, or none.
    """
    import numpy as np

    has = wanted.ids[list(models)] >= 0
    count = has.sum(axis=0)
    first = np.asarray(models)[has.argmax(axis=0)]
    owner = np.where(count == 0, ZERO, np.where(count == 1, first, MEAN))
    if base is not None and base in models:
        owner = np.where((count > 1) & (wanted.ids[base] >= 0), base, owner)
    row = np.where(owner >= 0, wanted.ids[owner, np.arange(len(owner))], 0)
    for token, (model, number) in wanted.rules.items():
        owner[token], row[token] = model, number
    return Rows(owner, row, wanted.ids, wanted.padding)


def rows_of(model: int, wanted: Wanted, lacking: Rows) -> Rows:
    """A model's rows: its own, but for tokens that it lacks and those that are forced."""
    import numpy as np

    keeps = wanted.ids[model] >= 0
    keeps[list(wanted.forced)] = False
    return Rows(
        np.where(keeps, model, lacking.owner),
        np.where(keeps, wanted.ids[model], lacking.row),
        wanted.ids,
        wanted.padding,
    )
