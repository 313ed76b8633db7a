"""Files of predictions as a suite reads them: they need no import, and are told so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from harness.errors import BadInput
from harness.imports.files import header
from harness.imports.format import Asked, Format, Given
from harness.registry import FORMATS

ARRAYS = {"probabilities", "log_probabilities", "logits", "predictions", "answers", "correct"}


def recognises(path: Path) -> bool:
    """An npz with ids, or a table of numbers: with or without a column of ids."""
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return "ids" in arrays.files and bool(ARRAYS & set(arrays.files))
        except (OSError, ValueError, BadZipFile, EOFError):
            return False
    columns = header(path)
    if "id" in columns and {"answer", "correct", "class"} & set(columns):
        return True
    others = [name for name in columns if name != "id" and not name.startswith("Unnamed")]
    return len(others) > 1 and "prompt" not in columns and "sample_id" not in columns and _numbers(path, others)


def _numbers(path: Path, columns: Sequence[str]) -> bool:
    """Whether the first rows of a table are numbers."""
    try:
        if path.suffix == ".csv":
            frame = pd.read_csv(path, nrows=100, usecols=list(columns), encoding="utf-8-sig")
        else:
            frame = pd.read_parquet(path, columns=list(columns))
    except (OSError, ValueError):
        return False
    return all(pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes)


def read(given: Sequence[Given], asked: Asked) -> NoReturn:
    """Nothing is to be done."""
    path = given[0].path
    members = f"pool: {{predictions: {{members: {{{given[0].member or path.stem}: {path.name}}}}}}}"
    raise BadInput("a file of predictions needs no import", place=str(path), hint=f"name it in a suite: {members}")


FORMATS.add(
    Format(
        "plain", "predict_proba in a csv, parquet or npz: needs no import, a suite reads it", recognises, read,
        ("member",), module=__name__,
    )
)
