"""What the messages of an Arrow file or stream declare: read from their headers, before any of their data is unpacked.

pyarrow has no call that says how large a compressed batch becomes. Arrow's format does: a message's header is a
flatbuffer that lists the buffers of its data, and each compressed buffer begins with its own size
(arrow.apache.org/docs/format/Columnar.html, Message.fbs and File.fbs).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

MAGIC = b"ARROW1"
"""What an Arrow file begins and ends with; a stream begins otherwise."""
MALFORMED = (pa.ArrowException, OSError, EOFError, ValueError, IndexError, struct.error)
"""What is raised for a file that is none: pyarrow would refuse it as well."""
VALUE = 8
"""Bytes that a value is taken for at least: one of the type null has none of its own."""
FIRST_COMPRESSION = b"ARROW:experimental_compression"
"""How the first files with compression said so, which are still read."""


def is_file(path: Path) -> bool:
    """Whether these are an Arrow file's bytes, not a stream's."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def unpacked_bytes(path: Path) -> int:
    """How many bytes all batches and dictionaries become together; ``MALFORMED`` where that is not said."""
    with pa.memory_map(str(path)) as source:
        return sum(_unpacked(message) for message in (_of_file(source) if is_file(path) else _of_stream(source)))


def _of_stream(source: pa.MemoryMappedFile) -> Iterator[pa.ipc.Message]:
    yield from pa.ipc.MessageReader.open_stream(source)


def _of_file(source: pa.MemoryMappedFile) -> Iterator[pa.ipc.Message]:
    """Those that the end of the file names: these are read, wherever they stand."""
    end = source.size() - len(MAGIC) - 4
    (length,) = struct.unpack("<i", source.read_at(4, end))
    if not 0 < length <= end:
        raise ValueError("the end of the file is longer than the file")
    root = _Table.root(source.read_at(length, end - length))
    for kind in (2, 3):  # dictionaries, batches
        for offset, _, _ in root.structs(kind, "<qi4xq"):
            source.seek(offset)
            yield pa.ipc.read_message(source)


def _unpacked(message: pa.ipc.Message) -> int:
    if message.type not in ("record batch", "dictionary"):
        return 0
    header, body = bytes(message.metadata), message.body
    batch = _Table.root(header).table(2)
    if message.type == "dictionary":
        batch = batch.table(1)
    values = sum(max(0, length) for length, _ in batch.structs(1, "<qq"))
    packed = batch.has(3) or FIRST_COMPRESSION in header
    buffers = [(offset, length) for offset, length in batch.structs(2, "<qq") if length] if packed else []
    sizes = [struct.unpack("<q", bytes(body[offset : offset + 8]))[0] for offset, _ in buffers]
    return max(VALUE * values, sum(size for size in sizes if size > 0))  # -1 is said of one that was left as it is


class _Table:
    """A table of a flatbuffer: its fields by number, as its schema counts them."""

    def __init__(self, content: bytes, at: int) -> None:
        self.content, self.at = content, at
        self.fields = at - self._number("<i", at)

    @classmethod
    def root(cls, content: bytes) -> _Table:
        return cls(content, struct.unpack_from("<I", content)[0])

    def has(self, field: int) -> bool:
        return bool(self._place(field))

    def table(self, field: int) -> _Table:
        place = self._place(field)
        return _Table(self.content, place + self._number("<I", place))

    def structs(self, field: int, layout: str) -> Iterator[tuple[int, ...]]:
        """The items of a vector; none where it is left out."""
        if place := self._place(field):
            start = place + self._number("<I", place)
            end = start + 4 + self._number("<I", start) * struct.calcsize(layout)
            if end > len(self.content):
                raise ValueError("a vector ends outside of its buffer")
            yield from struct.iter_unpack(layout, self.content[start + 4 : end])

    def _place(self, field: int) -> int:
        """Where a field is; 0 where it is left out."""
        entry = 4 + 2 * field
        if entry >= self._number("<H", self.fields):
            return 0
        offset = self._number("<H", self.fields + entry)
        return self.at + offset if offset else 0

    def _number(self, layout: str, at: int) -> int:
        if at < 0:
            raise ValueError("a place before the buffer")
        return int(struct.unpack_from(layout, self.content, at)[0])
