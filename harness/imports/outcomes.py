"""From scores to right or wrong."""

from __future__ import annotations

import pandas as pd

from harness.errors import BadInput


def right_or_wrong(
    scores: pd.DataFrame, tasks: pd.Series, threshold: float | None, place: str
) -> tuple[pd.DataFrame, list[str]]:
    """Which answers are right, bool [rows left, members], and a line for each task that was left out.

    A score of 1 is right and one of 0 is wrong. A task with other scores is left out whole, unless a threshold says
    from which score on an answer is right: to leave out single rows would choose rows by their outcome.

    Args:
        scores: [rows, members], between 0 and 1.
        tasks: which task each row belongs to.
        threshold: in (0, 1].
    """
    values = scores.to_numpy(float)
    if not ((values >= 0) & (values <= 1)).all():
        row, member = (~((values >= 0) & (values <= 1))).nonzero()
        what = f"'{scores.columns[member[0]]}' has the score {values[row[0], member[0]]:g} in '{scores.index[row[0]]}'"
        raise BadInput(f"scores are between 0 and 1, but {what}", place=place)
    if threshold is not None:
        return scores >= threshold, []
    whole = ((values == 0) | (values == 1)).all(axis=1)
    partial = sorted(set(tasks[~whole]))
    kept = ~tasks.isin(partial)
    if partial and not kept.any():
        names = f"all tasks have ({', '.join(partial[:3])}, …)" if len(partial) > 1 else "there are"
        hint = "say from which score on an answer is right: --threshold 0.5"
        raise BadInput(f"{names} scores other than 0 and 1", place=place, hint=hint)
    lines = [
        f"{(tasks == task).sum()} rows of {task}, whose scores are not only 0 and 1 (--threshold 0.5 keeps them: a "
        "score of at least that is right)"
        for task in partial
    ]
    return scores[kept] == 1, lines
