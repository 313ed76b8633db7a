"""The labelled examples in the rows of a user's tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import BadInput
from harness.keys import file_digest
from harness.tasks.arrow_tables import splits_of
from harness.tasks.own_files import DATA, OwnReference, split_called
from harness.tasks.own_labels import Fault, label_name, name_of
from harness.tasks.own_table import Table
from harness.tasks.own_tables import is_folder, open_table
from harness.tasks.raw_task import Example

Content = Callable[[Sequence[Any], Path], bytes]
"""The bytes of an example from its cells, beside the file that they stand in; ``Fault`` where they are none."""
Files = Callable[[Sequence[Any], Path], str | None]
"""The digest of the file that cells name, if they do."""
Returned = TypeVar("Returned")


class TableSource:
    """The rows of one table.

    Args:
        table: that they stand in.
        key: that the suite, or a folder of splits, names it by.
        reference: what the suite says.
        content_of: the bytes of an example.
        files_of: where examples may lie in files that the table names, these.
    """

    def __init__(
        self, table: Table, key: str, reference: OwnReference, content_of: Content, files_of: Files | None = None
    ) -> None:
        self.table, self.key, self.reference = table, key, reference
        self._content_of, self._files_of = content_of, files_of
        self.path = table.path
        asked = (reference.label, reference.id, reference.cluster, reference.split if key == DATA else None)
        self._optional = [column for column in asked if column]
        table.check_columns([*reference.columns, *reference.clean, *self._optional])
        self.classes = tuple(table.classes.get(reference.label, ()))

    def identity(self) -> Any:
        """The kind of table, and the contents of its files and of those that it names."""
        named = []
        if self._files_of and self.table.may_name_files(self.reference.columns[0]):
            for number, cells in self.table.rows(self.reference.columns):
                named.append(self._at(number, self._files_of, cells, self.path))
        return [self.path.suffix.lower(), [file_digest(file) for file in self.table.files], named]

    def examples(self) -> Iterator[Example]:
        count, clean = len(self.reference.columns), len(self.reference.clean)
        asked = [*self.reference.columns, *self.reference.clean, *self._optional]
        for row, (number, cells) in enumerate(self.table.rows(asked)):
            named = dict(zip(self._optional, cells[count + clean :], strict=True))
            yield self._at(number, self._example, row, cells[:count], cells[count : count + clean], named)

    def _at(self, number: int, function: Callable[..., Returned], *given: Any) -> Returned:
        """What a function gives; a fault is told with the row's place."""
        try:
            return function(*given)
        except Fault as fault:
            raise BadInput(str(fault), place=self.table.place(number)) from None
        except BadInput as fault:
            raise fault.at(self.table.place(number)) from None

    def _example(self, row: int, cells: Sequence[Any], clean: Sequence[Any], named: dict[str, Any]) -> Example:
        reference = self.reference
        label = label_name(named[reference.label], self.classes or None)
        identity = name_of(named[reference.id], "id") if reference.id else f"{self.key}-{row}"
        cluster = name_of(named[reference.cluster], "cluster") if reference.cluster else ""
        split = "train" if self.key == DATA else self.key
        if self.key == DATA and reference.split:
            split = split_called(name_of(named[reference.split], "split"))
        uncorrupted = self._content_of(clean, self.path) if clean else b""
        return Example(self._content_of(cells, self.path), label, identity, cluster, split, uncorrupted)


def tables(
    key: str, path: str, reference: OwnReference, content_of: Content, files_of: Files | None = None
) -> list[TableSource]:
    """The table that a suite names; or, of a folder of several splits under ``data``, that of each split."""
    place = Path(path)
    splits = splits_of(place) if key == DATA and is_folder(place) else {}
    if not splits:
        return [TableSource(open_table(place), key, reference, content_of, files_of)]
    by_split: dict[str, Path] = {}
    for name, folder in splits.items():
        try:
            split = split_called(name)
        except BadInput:
            continue  # such as the texts without labels of some data sets
        if split in by_split:
            raise BadInput(f"'{by_split[split].name}' and '{name}' are both {split}", place=path)
        by_split[split] = folder
    if reference.split:
        raise BadInput(f"the folder has splits of its own, so no column '{reference.split}' says them", place=path)
    return [
        TableSource(open_table(folder), split, reference, content_of, files_of) for split, folder in by_split.items()
    ]
