"""Which rows are held-out and which are test: as the source says, or drawn, so that no question is in both."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.errors import BadInput

SHARE = 0.3
"""Of the questions that are held-out, where the source says nothing."""
HELDOUT, TEST = "heldout", "test"


def split_rows(questions: pd.DataFrame, share: float | None, seed: int, place: str) -> np.ndarray:
    """Which rows are held-out, bool [N].

    Rows of one ``group`` go together. Of each class and ``stratum`` the held-out split has the same share, to within
    one group, and of all groups the share that is asked for, to within one.

    Args:
        questions: of ``Imported``.
        share: of the groups, between 0 and 1; None as the source says, or ``SHARE``.
        seed: of the draw.
    """
    if "split" in questions:
        if share is not None:
            raise BadInput("the source says itself which rows are held-out", place=place, hint="leave --heldout out")
        heldout = (questions["split"] == HELDOUT).to_numpy()
    else:
        heldout = _draw(questions, SHARE if share is None else share, seed)
    if heldout.all() or not heldout.any():
        empty = TEST if heldout.all() else HELDOUT
        raise BadInput(f"{len(heldout)} rows leave the {empty} split empty", place=place, hint="import more rows")
    return heldout


def _draw(questions: pd.DataFrame, share: float, seed: int) -> np.ndarray:
    groups = questions["group"] if "group" in questions else pd.Series(questions.index, questions.index)
    units = pd.DataFrame({"group": groups.to_numpy()})
    for column in ("stratum", "label"):
        units[column] = questions[column].to_numpy() if column in questions else ""
    units = units.drop_duplicates("group")
    rng = np.random.default_rng(seed)
    order = [rng.permutation(rows) for _, rows in sorted(units.groupby(["stratum", "label"]).groups.items())]
    shuffled = np.concatenate(order)
    edges = np.floor(np.arange(len(shuffled) + 1) * share + 0.5)
    chosen = shuffled[np.diff(edges) > 0]
    return groups.isin(set(units["group"].loc[chosen])).to_numpy()
