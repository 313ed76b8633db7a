"""Members' class probabilities of a table's validation and test rows, as AutoGluon and TabArena keep them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.errors import BadInput
from harness.imports.imported import Imported
from harness.imports.joining import refuse_twice
from harness.imports.splitting import HELDOUT, TEST

ROUNDED = 1e-6
"""Sums of probabilities that are further from 1 come from numbers rounded to float16."""


@dataclass(frozen=True)
class Part:
    """The validation or the test rows."""

    predictions: np.ndarray
    """[M, N, C], or [M, N] with the probability of the second of two classes."""
    labels: np.ndarray
    """[N] positions of classes."""
    rows: Sequence[str]
    """[N] names of rows, unique within the part."""


def tabular(
    models: Sequence[str], parts: Mapping[str, Part], classes: Sequence[str] | None, place: str
) -> Imported:
    """Predictions of some models: validation rows are held-out, test rows are test.

    Where the source has no test rows, the validation rows are split later.

    Args:
        models: [M] names.
        parts: by "val" and "test".
        classes: [C] names; None for their numbers.
        place: the source, for messages.
    """
    refuse_twice(pd.Index(models), place)
    matrices, labels, ids, splits = [], [], [], []
    for name, part in parts.items():
        matrix = _with_both_classes(np.asarray(part.predictions, dtype=np.float64))
        if matrix.shape[:2] != (len(models), len(part.labels)) or len(part.rows) != len(part.labels):
            problem = f"the {name} predictions {part.predictions.shape} do not fit {len(models)} models and " \
                      f"{len(part.labels)} labels"  # fmt: skip
            raise BadInput(problem, place=place)
        matrices.append(matrix)
        labels.append(np.asarray(part.labels))
        ids += [f"{name}-{row}" for row in part.rows]
        splits += [HELDOUT if name == "val" else TEST] * len(part.labels)
    if len({matrix.shape[2] for matrix in matrices}) > 1:
        raise BadInput("validation and test predictions have different numbers of classes", place=place)
    values, positions, index = np.concatenate(matrices, axis=1), np.concatenate(labels), pd.Index(ids, dtype=object)
    refuse_twice(index, place)
    count = values.shape[2]
    names = [str(position) for position in range(count)] if classes is None else list(classes)
    if len(names) != count:
        raise BadInput(f"{len(names)} classes are named, but predictions have {count}", place=place)
    refuse_twice(pd.Index(names), place)
    known = np.isin(positions, np.arange(count))
    dropped = [f"{(~known).sum()} rows whose label is none of the {count} classes"] if not known.all() else []
    values, notes = _normalised(values[:, known])
    questions = pd.DataFrame({"label": np.asarray(names, dtype=object)[positions[known].astype(int)]}, index[known])
    if len(parts) > 1:
        questions["split"] = np.asarray(splits)[known]
    members = {
        model: pd.DataFrame(matrix, questions.index, names) for model, matrix in zip(models, values, strict=True)
    }
    return Imported("probabilities", questions, members, tuple(names), dropped, notes)


def _with_both_classes(values: np.ndarray) -> np.ndarray:
    """[M, N, C] from [M, N] of two classes."""
    return np.stack([1 - values, values], axis=-1) if values.ndim == 2 else values


def _normalised(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Rows that sum to 1, and a line where they did not because of float16's rounding; other sums are refused later."""
    sums = values.sum(axis=-1, keepdims=True)
    off = np.abs(sums - 1).max(initial=0.0)
    if ROUNDED < off <= 1e-2:
        return values / sums, [f"probabilities are divided by their sums, which are off by up to {off:.1e}"]
    return values, []
