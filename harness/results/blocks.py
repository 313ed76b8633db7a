"""Where the rows of a large table are that belong together, without sorting it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def blocks(*columns: pd.Series) -> dict[Any, list[slice]]:
    """The rows of each combination of values: pieces of rows that follow each other, in their order.

    Tables of runs have few pieces, one for each seed, so that nothing is sorted or copied.

    Args:
        columns: of one table; the keys are the values of a single one, and tuples of several.
    """
    if not len(columns[0]):
        return {}
    categories = [column.astype("category").cat for column in columns]
    codes = np.stack([each.codes.to_numpy() for each in categories])
    starts = [0, *(np.flatnonzero((codes[:, 1:] != codes[:, :-1]).any(axis=0)) + 1).tolist()]
    found: dict[Any, list[slice]] = {}
    for start, stop in zip(starts, [*starts[1:], codes.shape[1]], strict=True):
        key = tuple(each.categories[code] for each, code in zip(categories, codes[:, start], strict=True))
        found.setdefault(key if len(columns) > 1 else key[0], []).append(slice(start, stop))
    return found
