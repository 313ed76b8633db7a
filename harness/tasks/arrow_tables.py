"""Tables in Arrow's formats: Parquet, Arrow files and streams, and folders that ``datasets`` saved to disk."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from harness.errors import BadInput
from harness.strict.arrow_messages import is_file
from harness.strict.sizes import check_arrow, check_parquet
from harness.tasks.own_table import Table

AT_ONCE = 500
"""Rows that are in memory at once: images are large."""
TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
INFO, STATE, DICTIONARY = "dataset_info.json", "state.json", "dataset_dict.json"
"""What ``save_to_disk`` writes beside the data."""


class _Arrow(Table):
    """A table of record batches, which are checked before anything in them is followed."""

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
        number = 0
        with self._readable():
            for batch in self._batches(columns):
                batch.validate(full=True)
                for row in zip(*(batch.column(name).to_pylist() for name in columns), strict=True):
                    number += 1
                    yield number, list(row)

    def may_name_files(self, column: str) -> bool:
        kind = self.schema.field(column).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        of_paths = pa.types.is_struct(kind) and kind.get_field_index("path") >= 0  # as ``datasets`` keeps images
        return of_paths or any(is_(kind) for is_ in TEXT)

    @abstractmethod
    def _batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows, some at a time."""

    def _known(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.columns = list(schema.names)
        self.classes = _classes(schema)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except UnicodeDecodeError:
            raise BadInput("a text is not UTF-8", place=str(self.path)) from None
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise BadInput(f"the data cannot be read: {reason}", place=str(self.path), hint="was it cut off?") from None


class ParquetFile(_Arrow):
    """A Parquet file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, [path])
        check_parquet(path)
        with self._readable(), pyarrow.parquet.ParquetFile(path) as file:
            self._known(file.schema_arrow)

    def _batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with pyarrow.parquet.ParquetFile(self.path, memory_map=True) as file:
            yield from file.iter_batches(AT_ONCE, columns=list(columns))


class ArrowFile(_Arrow):
    """An Arrow file (Feather) or an Arrow stream."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, [path])
        check_arrow(path)
        with self._readable(), self._opened() as reader:
            self._known(reader.schema)

    def _opened(self) -> Any:
        source = pa.memory_map(str(self.path))
        return pa.ipc.open_file(source) if is_file(self.path) else pa.ipc.open_stream(source)

    def _batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with self._opened() as reader:
            numbers = range(reader.num_record_batches) if hasattr(reader, "num_record_batches") else None
            batches = reader if numbers is None else map(reader.get_batch, numbers)
            for batch in batches:
                chosen = batch.select(list(columns))
                yield from (chosen.slice(begin, AT_ONCE) for begin in range(0, len(chosen), AT_ONCE))


class SavedDataset(_Arrow):
    """A folder that ``Dataset.save_to_disk`` wrote: read by ``datasets`` itself, memory-mapped; no code is run."""

    def __init__(self, path: Path) -> None:
        if (path / DICTIONARY).is_file():
            names = ", ".join(splits_of(path))
            raise BadInput("the folder holds several splits", place=str(path), hint=f"name one of its folders: {names}")
        files = _files_of_saved(path)
        super().__init__(path, files)
        for file in files:
            check_arrow(file)
        import datasets  # takes a second

        with self._readable():
            self._dataset = datasets.load_from_disk(str(path)).with_format("arrow")
            self._known(self._dataset.features.arrow_schema)

    def _batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for table in self._dataset.select_columns(list(columns)).iter(AT_ONCE):
            yield from table.to_batches()


def is_saved(folder: Path) -> bool:
    """Whether ``datasets`` saved this folder."""
    return any((folder / name).is_file() for name in (STATE, DICTIONARY))


def splits_of(folder: Path) -> dict[str, Path]:
    """The folders of the splits of a ``DatasetDict`` that was saved to disk, by name; none where it is one split."""
    if not (folder / DICTIONARY).is_file():
        return {}
    names = _json(folder / DICTIONARY).get("splits")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadInput("it does not name its splits", place=str(folder / DICTIONARY))
    return {name: _inside(folder, name) for name in names}


def _files_of_saved(folder: Path) -> list[Path]:
    """All files that a saved data set is read from."""
    parts = _json(folder / STATE).get("_data_files")
    try:
        names = [str(part["filename"]) for part in parts or ()]
    except (TypeError, KeyError):
        raise BadInput("it does not name the files of its data", place=str(folder / STATE)) from None
    files = [_inside(folder, name) for name in (INFO, STATE, *names)]
    if lacking := [file for file in files if not file.is_file()]:
        raise BadInput("a file of the data set is missing", place=str(lacking[0]))
    return files


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BadInput(f"'{name}' is outside of the data set's folder", place=str(folder))
    return path


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise BadInput("no JSON object as 'datasets' writes it", place=str(path))
    return found


def _classes(schema: pa.Schema) -> Mapping[str, Sequence[str]]:
    """The names of the classes of the columns that ``datasets`` says hold such."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    import datasets

    features = datasets.Features.from_arrow_schema(schema)
    return {name: tuple(of.names) for name, of in features.items() if isinstance(of, datasets.ClassLabel) and of.names}
