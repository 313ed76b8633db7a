"""The score that a run goes by, and its variants in the order of it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.results.columns import column_of
from harness.results.metric import Column
from harness.results.run import Run


def scores_of(run: Run) -> list[Column]:
    """The suite's scores, the one that decides first.

    A metric that nothing installed here declares is left out; accuracy stands for all where that leaves none.
    """
    known = [column for name in run.scores_of_suite if (column := column_of(name)) is not None]
    accuracy = column_of("accuracy")
    assert accuracy is not None
    return known or [accuracy]


def score_of(run: Run) -> Column:
    """The score that decides."""
    return scores_of(run)[0]


def known(values: np.ndarray | None) -> np.ndarray | None:
    """The values behind a score, with NaN where a seed was not tested on an example; None where the score is not known.

    That is where no value is known, as of answers without probabilities, or where some are infinite, as the NLL of a
    label that was given probability 0.
    """
    lacking = values is None or bool(np.isnan(values).all() or np.isinf(values).any())
    return None if lacking else values


def in_order(rows: pd.DataFrame, score: Column, cost: str = "flops_per_example") -> pd.DataFrame:
    """Rows of variants.csv, the best first; equal ones: the lower cost of serving, then the name."""
    up = score.sign < 0
    return rows.sort_values([score.name, cost, "variant"], ascending=[up, True, True])
