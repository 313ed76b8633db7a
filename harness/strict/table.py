"""Tables in users' files, CSV and Parquet: nothing is converted by guess, and a fault is one line with its place."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from harness.errors import BadInput
from harness.strict.sizes import check_parquet

ENDINGS = (".csv", ".parquet")
FAULTS = (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error)
"""What broken files raise."""


def read_table(path: Path) -> pa.Table:
    """All columns of a file; those of CSV are text, UTF-8.

    Raises:
        BadInput: a file that is not there, is no such table, has a column twice, or has no rows.
    """
    check_file(path, ENDINGS)
    if path.suffix == ".parquet":
        check_parquet(path)
    try:
        table = _read_csv(path) if path.suffix == ".csv" else pyarrow.parquet.read_table(path)
    except FAULTS as error:
        raise unreadable(path, error) from None
    names = table.column_names
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadInput(f"the column '{twice[0]}' is there twice", place=str(path))
    if not table.num_rows:
        raise BadInput("the table has no rows", place=str(path))
    return table


def check_file(path: Path, endings: tuple[str, ...]) -> None:
    """``BadInput`` where there is no such file, it is empty, or its name does not end in one of these."""
    if path.suffix not in endings:
        raise BadInput(f"'{path.suffix}' is no kind of file that is read here", place=str(path), choices=endings)
    if not path.is_file():
        raise BadInput("there is no such file", place=str(path))
    if not path.stat().st_size:
        raise BadInput("the file is empty", place=str(path))


def unreadable(path: Path, error: Exception) -> BadInput:
    """What is said of a file whose bytes are not what its name says."""
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    hint = "save it as UTF-8" if "utf" in reason.lower() else "was it cut off?"
    return BadInput(f"the file cannot be read as {path.suffix[1:]}: {reason}", place=str(path), hint=hint)


def _read_csv(path: Path) -> pa.Table:
    with open(path, encoding="utf-8-sig", newline="") as lines:
        header = next(csv.reader(lines), [])
    types = dict.fromkeys(header, pa.string())
    return pyarrow.csv.read_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=False),
    )


def column_of(table: pa.Table, name: str, place: Path) -> pa.ChunkedArray:
    """A column by its name; ``BadInput`` with those that there are."""
    if name not in table.column_names:
        choices = table.column_names[:20]
        raise BadInput(f"the column '{name}' is missing", place=str(place), given=name, choices=choices)
    return table.column(name)


def coded(table: pa.Table, name: str, place: Path) -> tuple[list[str], np.ndarray]:
    """A column's different values as text, and for each row [N] which of them it has, int64.

    Text is as it is written; a number is as Python writes it: 7 is "7", and 7.0 is "7.0".

    Raises:
        BadInput: no such column, a row without a value, or values that are neither text nor numbers.
    """
    column = column_of(table, name, place).combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # of older pyarrow
        column = pa.concat_arrays(column.chunks)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    encoded = column.dictionary_encode()
    values, codes = encoded.dictionary.to_pylist(), encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    if odd := next((value for value in values if not isinstance(value, str | int | float)), None):
        raise BadInput(f"the column '{name}' holds {type(odd).__name__}, not text or numbers", place=str(place))
    names = [str(value) for value in values]
    lacking = np.isin(codes, [-1, *(k for k, value in enumerate(values) if value == "" or value != value)])
    if lacking.any():
        row = int(lacking.argmax())
        raise BadInput(f"the column '{name}' has no value in row {row + 1}", place=str(place))
    return names, codes.astype(np.int64)


def texts(table: pa.Table, name: str, place: Path) -> list[str]:
    """A column [N] as text; arguments and errors as ``coded``."""
    names, codes = coded(table, name, place)
    return [names[code] for code in codes]


def numbers(table: pa.Table, name: str, place: Path) -> np.ndarray:
    """A column [N] as float64; ``BadInput`` where a row has none, NaN counts as one."""
    column: Any = column_of(table, name, place)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pyarrow.compute.utf8_trim_whitespace(column)
    try:
        values = column.cast(pa.float64())
    except pa.ArrowException as error:
        raise BadInput(f"the column '{name}' holds no numbers: {error}", place=str(place)) from None
    if values.null_count:
        row = int(np.argmax(values.is_null().to_numpy()))
        raise BadInput(f"the column '{name}' has no value in row {row + 1}", place=str(place))
    return np.asarray(values.to_numpy(), np.float64)
