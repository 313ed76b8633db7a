"""Reading the files of a source: every fault is one line that names the file and the place in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from harness.display.lines import one_line, said_by
from harness.errors import BadInput
from harness.strict.sizes import check_parquet

PICKLES = (".pkl", ".pickle", ".p", ".joblib")
TABLES = (".csv", ".parquet")


def is_pickle(path: Path) -> bool:
    """Whether a file is a Python pickle, by its name or its first bytes (protocol 2 and later)."""
    if not path.is_file():
        return False
    with path.open("rb") as handle:
        start = handle.read(2)
    named = any(suffix in PICKLES for suffix in path.suffixes)
    return named or (len(start) == 2 and start[0] == 0x80 and 2 <= start[1] <= 5)


@contextmanager
def reading_source(place: str) -> Iterator[None]:
    """Around what reads a source: whatever its files, damaged or with values of other types, make it raise is a line.

    Each format says what it can of its own faults; none can foresee all.
    """
    try:
        yield
    except BadInput:
        raise
    except OSError as error:
        raise BadInput(f"it cannot be read: {error.strerror or one_line(error)}", place=place) from error
    except Exception as error:
        problem = f"it is not laid out as its format is: {type(error).__name__}: {one_line(said_by(error), 300)}"
        raise BadInput(problem, place=place, hint="was it cut off, or edited?") from error


def first_record(path: Path) -> dict[str, Any]:
    """The first line of a JSONL file, where it is a JSON object; an empty mapping otherwise."""
    try:
        with path.open(encoding="utf-8") as handle:
            record = json.loads(next((line for line in handle if line.strip()), "null"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSONL file, each with its place, ``file:line``."""
    number = 0
    try:
        with path.open(encoding="utf-8") as handle:
            for number, line in enumerate(handle, start=1):
                if not line.strip():
                    continue
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise BadInput("a line is no JSON object", place=f"{path}:{number}")
                yield f"{path}:{number}", record
    except UnicodeDecodeError:
        raise BadInput("the file is not UTF-8", place=f"{path}:{number + 1}") from None
    except (json.JSONDecodeError, RecursionError) as fault:
        problem = f"a line is no JSON ({fault}): is the file cut off?"
        raise BadInput(problem, place=f"{path}:{number}") from None


def json_file(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise BadInput("the file is not UTF-8", place=str(path)) from None
    except (json.JSONDecodeError, RecursionError) as fault:
        raise BadInput(f"the file is no JSON ({fault}): is it cut off?", place=str(path)) from None
    if not isinstance(value, dict):
        raise BadInput("the file is no JSON object", place=str(path))
    return value


def header(path: Path) -> list[str]:
    """The names of a table's columns; none where the file is no table."""
    try:
        if path.suffix == ".csv":
            return [str(name) for name in pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns]
        if path.suffix == ".parquet":
            import pyarrow.parquet

            return [str(name) for name in pyarrow.parquet.read_schema(path).names]
    except (OSError, ValueError):  # what pandas and pyarrow raise for other files are kinds of ValueError
        pass
    return []


def read_table(path: Path, text: tuple[str, ...] = ()) -> pd.DataFrame:
    """A CSV or parquet file; the columns in ``text`` are read as text, whatever they look like.

    A CSV's empty cells are NaN, but a cell that says "NA" or "None" is that text.
    """
    if path.suffix not in TABLES:
        raise BadInput(f"a table is {' or '.join(TABLES)}", place=str(path))
    try:
        if path.suffix == ".parquet":
            check_parquet(path)
            return pd.read_parquet(path)
        _refuse_repeated_names(path)
        return pd.read_csv(path, encoding="utf-8-sig", dtype=dict.fromkeys(text, str), keep_default_na=False,
                           na_values=[""], low_memory=False)  # fmt: skip
    except UnicodeDecodeError:
        raise BadInput("the file is not UTF-8", place=str(path)) from None
    except (OSError, ValueError) as fault:
        raise BadInput(f"the file is no {path.suffix[1:]} that can be read ({fault})", place=str(path)) from None


def _refuse_repeated_names(path: Path) -> None:
    """pandas would give the second of two equal names another one."""
    names = pd.read_csv(path, header=None, nrows=1, encoding="utf-8-sig", dtype=str).iloc[0]
    if (twice := names[names.duplicated()]).size:
        raise BadInput(f"two columns are called '{twice.iloc[0]}'", place=str(path))
