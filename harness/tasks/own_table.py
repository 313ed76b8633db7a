"""A table that is read row by row, whatever kind of file it lies in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import BadInput


class Table(ABC):
    """A table in one file or folder.

    Attributes:
        path: as the user named it.
        files: all files that it is read from.
        columns: their names, in order.
        classes: of the columns whose numbers stand for classes (``datasets.ClassLabel``), the names of these.
    """

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        self.path, self.files = path, files
        self.columns: list[str] = []
        self.classes: Mapping[str, Sequence[str]] = {}

    @abstractmethod
    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
        """The number of each row (``place``), and what it has in these columns; ``BadInput`` as faults are met."""

    def place(self, number: int) -> str:
        """Where a row is, for messages."""
        return f"{self.path}: row {number}"

    def may_name_files(self, column: str) -> bool:
        """Whether a column is of text, which may be paths."""
        return True

    def check_columns(self, columns: Sequence[str]) -> None:
        """``BadInput`` for the first column that is missing, with those that there are."""
        for column in columns:
            if column not in self.columns:
                raise BadInput(f"the column '{column}' is missing", place=str(self.path), given=column,
                               choices=self.columns[:20])  # fmt: skip
