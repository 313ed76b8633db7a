"""Tables in a user's files, read row by row: CSV, TSV, JSON lines, Parquet, Arrow, and what ``datasets`` saved.

Nothing is converted by guess: cells of CSV are text, and those of other files what they are there.
"""

from __future__ import annotations

import csv
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.tasks.arrow_tables import ArrowFile, ParquetFile, SavedDataset, is_saved
from harness.tasks.own_table import Table

PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".npy")


class Delimited(Table):
    """CSV as RFC 4180 has it, in UTF-8, with a header; TSV is the same with tabs."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, [path])
        self._delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        _, self.columns = next(self._lines(), (1, []))
        if not self.columns:
            raise BadInput("the file has no header", place=str(path))

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
        at = [self.columns.index(column) for column in columns]
        lines = self._lines()
        next(lines)
        for line, row in lines:
            if len(row) != len(self.columns):
                hint = "fields with commas, quotes or line ends in them stand in double quotes"
                words = f"a row of {len(row)} fields, under a header of {len(self.columns)}"
                raise BadInput(words, place=self.place(line), hint=hint)
            yield line, [row[each] for each in at]

    def place(self, number: int) -> str:
        return f"{self.path}:{number}"

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """Rows that are not empty, each with the line that it begins at."""
        csv.field_size_limit(2**31 - 1)
        begins = 1
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=self._delimiter, strict=True)
            try:
                for row in reader:
                    if row:
                        yield begins, row
                    begins = reader.line_num + 1
            except csv.Error as error:
                hint = "a quote inside a quoted field is written twice"
                raise BadInput(f"no CSV: {error}", place=self.place(begins), hint=hint) from None
            except UnicodeDecodeError:
                raise not_utf8(self.path) from None


class JsonLines(Table):
    """One JSON object a line, in UTF-8; or a list of objects."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, [path])
        with path.open("rb") as file:
            self._is_list = file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["
        _, first = next(self._objects(), (1, {}))
        self.columns = list(first)

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
        for number, row in self._objects():
            if lacking := [column for column in columns if column not in row]:
                raise BadInput(f"the key '{lacking[0]}' is missing", place=self.place(number), given=lacking[0],
                               choices=list(row)[:20])  # fmt: skip
            yield number, [row[column] for column in columns]

    def place(self, number: int) -> str:
        return f"{self.path}: item {number}" if self._is_list else f"{self.path}:{number}"

    def _objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        if self._is_list:
            with self.path.open("rb") as file:
                found = self._parsed(file.read(), 1)
            yield from ((number, self._object(row, number)) for number, row in enumerate(found, 1))
            return
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, self._object(self._parsed(line, number), number)

    def _parsed(self, text: bytes, number: int) -> Any:
        try:
            return json.loads(text.decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise not_utf8(self.path) from None
        except (ValueError, RecursionError) as error:
            hint = "there is one object a line, or one list of objects; was the file cut off?"
            reason = str(error) if isinstance(error, ValueError) else "nested too deep"
            place = str(self.path) if self._is_list else self.place(number)
            raise BadInput(f"no JSON: {reason}", place=place, hint=hint) from None

    def _object(self, value: Any, number: int) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise BadInput("no JSON object with a key for each column", place=self.place(number))
        return value


def not_utf8(path: Path) -> BadInput:
    """What is said of a file of text with a line in another encoding."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                words = f"the byte {line[error.start]:#04x} is not UTF-8"
                return BadInput(words, place=f"{path}:{number}", hint="save the file as UTF-8")
    return BadInput("the file is not UTF-8", place=str(path))


READERS: Mapping[str, Callable[[Path], Table]] = {
    ".csv": Delimited, ".tsv": Delimited,
    ".jsonl": JsonLines, ".ndjson": JsonLines, ".json": JsonLines,
    ".parquet": ParquetFile, ".arrow": ArrowFile, ".feather": ArrowFile,
}  # fmt: skip
"""By the ending of a file's name."""


def open_table(path: Path) -> Table:
    """A table, with its columns checked; its rows are read when they are asked for.

    Raises:
        BadInput: no such file, a kind of file that is not read, an empty one, or one that is not what its name says.
    """
    if is_folder(path):
        if not is_saved(path):
            raise BadInput("the folder is no data set that 'datasets' saved", place=str(path),
                           hint="name a file, or a folder that save_to_disk wrote")  # fmt: skip
        return SavedDataset(path)
    check_ending(path)
    table = READERS[path.suffix.lower()](path)
    if twice := [name for name in table.columns if table.columns.count(name) > 1]:
        raise BadInput(f"the column '{twice[0]}' is there twice", place=str(path))
    return table


def check_ending(path: Path) -> None:
    """``BadInput`` where no reader is for files of this name, or the file is empty."""
    if path.suffix.lower() not in READERS:
        words = f"'{path.suffix or path.name}' is no kind of file that is read here"
        pickled = path.suffix.lower() in PICKLES
        hint = "pickles can run code and are never read: save the table as Parquet" if pickled else None
        raise BadInput(words, place=str(path), given=path.suffix, choices=READERS, hint=hint)
    if not path.stat().st_size:
        raise BadInput("the file is empty", place=str(path))


def is_folder(path: Path) -> bool:
    """Whether this is a folder, and not a file; ``BadInput`` where it is neither, is not there or cannot be read."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        words = "there is no such file or folder" if isinstance(error, FileNotFoundError) else error.strerror
        raise BadInput(str(words), place=str(path)) from None
    except ValueError:
        raise BadInput("this is no path", place=repr(str(path))) from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise BadInput("this is neither a file nor a folder", place=str(path))
    if not os.access(path, os.R_OK):
        raise BadInput("the permission to read it is missing", place=str(path))
    return stat.S_ISDIR(mode)
