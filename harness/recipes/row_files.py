"""Tensors with a row for every token, written anew with other rows: in bounded memory, into a file of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from harness.recipes.token_rows import MEAN, ZERO, Rows
from harness.streaming.plan import BYTES, Adapted, Source, TensorAt

if TYPE_CHECKING:
    import numpy as np

BLOCK = 1 << 23
"""Bytes of rows in float32 that are in memory at once, of each model."""


def _stored_as(rows: Rows, sources: Mapping[int, Source]) -> tuple[str, bool]:
    """safetensors' name of the type that holds all rows exactly, or is computed in; and whether they are copied."""
    averaged = bool((rows.owner == MEAN).any()) or rows.padding > 0
    types = {each.dtype for each in sources.values()}
    if len(types) == 1 and not averaged and not any(isinstance(each, Adapted) for each in sources.values()):
        return types.pop(), True
    return ("F64" if "F64" in types else "F32"), False


def _needed(rows: Rows, sources: Mapping[int, Source]) -> Mapping[int, Source]:
    """The models whose rows are read, or any one where all rows are zeros."""
    if (rows.owner == MEAN).any():
        return sources
    used = sorted({int(each) for each in set(rows.owner.tolist()) if each >= 0}) or list(sources)[:1]
    return {model: sources[model] for model in used}


def write_tensors(file: Path, tensors: Mapping[str, tuple[Rows, Mapping[int, Source]]]) -> dict[str, TensorAt]:
    """A safetensors file of tensors with new rows, block by block.

    Args:
        file: that does not exist.
        tensors: by name, the rows and the tensors of the models that they are from.

    Returns:
        where each lies.
    """
    needed = {name: (rows, _needed(rows, sources)) for name, (rows, sources) in tensors.items()}
    header: dict[str, Any] = {}
    end = 0
    for name, (rows, sources) in needed.items():
        dtype, shape = _stored_as(rows, sources)[0], (len(rows.row) + rows.padding, *_inner(sources))
        begin, end = end, end + prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(file, "xb") as target:
        target.write(len(text).to_bytes(8, "little") + text)
        for rows, sources in needed.values():
            _write_rows(target, rows, sources)
    start = 8 + len(text)
    return {
        name: TensorAt(file, name, said["dtype"], tuple(said["shape"]), start + begin, stop - begin)
        for name, said in header.items()
        for begin, stop in [said["data_offsets"]]
    }


def _inner(sources: Mapping[int, Source]) -> tuple[int, ...]:
    """The shape of one row."""
    return next(iter(sources.values())).shape[1:]


def _write_rows(target: BinaryIO, rows: Rows, sources: Mapping[int, Source]) -> None:
    import numpy as np

    dtype, copied = _stored_as(rows, sources)
    readers = {model: _Reader.of(source) for model, source in sources.items()}
    total = np.zeros(_inner(sources), dtype=np.float64)
    for begin, end in _blocks(len(rows.row), prod(_inner(sources))):
        block = slice(begin, end)
        if copied:
            target.write(_gathered(rows.owner[block], rows.row[block], readers).tobytes())
            continue
        computed = _computed(rows, block, readers, "<f8" if dtype == "F64" else "<f4")
        total += computed.sum(axis=0, dtype=np.float64)
        target.write(computed.tobytes())
    if rows.padding:
        mean = (total / len(rows.row)).astype("<f8" if dtype == "F64" else "<f4")
        for _ in range(rows.padding):
            target.write(mean.tobytes())


def _blocks(count: int, inner: int) -> Iterator[tuple[int, int]]:
    step = max(1, BLOCK // (4 * max(1, inner)))
    for begin in range(0, count, step):
        yield begin, min(count, begin + step)


def _gathered(owner: np.ndarray, row: np.ndarray, readers: Mapping[int, _Reader]) -> np.ndarray:
    """Bytes of rows as they are stored: [rows, bytes]."""
    import numpy as np

    width = next(iter(readers.values())).bytes.shape[1]
    out = np.zeros((len(owner), width), dtype=np.uint8)
    for model in set(owner.tolist()) - {ZERO}:
        mine = owner == model
        out[mine] = readers[model].bytes[row[mine]]
    return out


def _computed(rows: Rows, block: slice, readers: Mapping[int, _Reader], kind: str) -> np.ndarray:
    """Rows as numbers."""
    import numpy as np

    owner, row = rows.owner[block], rows.row[block]
    out = np.zeros((len(owner), *next(iter(readers.values())).inner), dtype=kind)
    for model, reader in readers.items():
        mine = owner == model
        if mine.any():
            out[mine] = reader.numbers(row[mine])
    mean = owner == MEAN
    if mean.any():
        count = np.zeros(len(owner), dtype=kind)
        for model, reader in readers.items():
            ids = rows.ids[model, block]
            mine = mean & (ids >= 0)
            if mine.any():
                out[mine] += reader.numbers(ids[mine])
                count[mine] += 1
        out[mean] /= count[mean].reshape(-1, *[1] * (out.ndim - 1))
    return out


@dataclass(frozen=True)
class _Reader:
    """Rows of a tensor in a file."""

    source: Source
    bytes: np.ndarray
    """[rows, bytes] mapped."""
    inner: tuple[int, ...]

    @classmethod
    def of(cls, source: Source) -> _Reader:
        tensor = source.tensor if isinstance(source, Adapted) else source
        return cls(source, _mapped(tensor), tensor.shape[1:])

    def numbers(self, rows: np.ndarray) -> np.ndarray:
        """Some rows in float32, or float64 where the file has that."""
        source = self.source
        tensor = source.tensor if isinstance(source, Adapted) else source
        values = _numbers(self.bytes[rows], tensor.dtype).reshape(len(rows), *self.inner)
        if not isinstance(source, Adapted):
            return values
        a, b = (_numbers(_mapped(each), each.dtype).reshape(each.shape) for each in (source.a, source.b))
        product = a[:, rows].T @ b.T if source.transposed else b[rows] @ a
        added: np.ndarray = values + product * source.scale
        return added


def _mapped(tensor: TensorAt) -> np.ndarray:
    import numpy as np

    shape = (tensor.shape[0], tensor.nbytes // tensor.shape[0])
    return np.memmap(tensor.path, dtype=np.uint8, mode="r", offset=tensor.offset, shape=shape)


def _numbers(content: np.ndarray, dtype: str) -> np.ndarray:
    """Stored bytes as numbers: [rows, entries]."""
    import numpy as np

    content = np.ascontiguousarray(content)
    if dtype == "BF16":  # the upper half of a float32
        wide: np.ndarray = (content.view("<u2").astype("<u4") << 16).view("<f4")
        return wide
    values = content.view({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])
    return values if dtype == "F64" else values.astype("<f4")
