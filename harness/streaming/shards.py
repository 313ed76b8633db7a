"""Folders of safetensors: which files hold a model's weights, and where in them each tensor lies."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.streaming.plan import BYTES, TensorAt

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MOST_HEADER_BYTES = 100_000_000
"""The library's limit."""

BITS = {
    **{name: 8 * size for name, size in BYTES.items()},
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
    "U16": 16,
    "U32": 32,
    "U64": 64,
    "C64": 64,
}
"""Bits of an element of every type that safetensors knows."""


@dataclass(frozen=True)
class Folder:
    """The weights of a model's folder."""

    path: Path
    files: tuple[Path, ...]
    tensors: dict[str, TensorAt]
    """In the order of the files, and within each in the order of the bytes."""


def read_folder(folder: Path) -> Folder:
    """Where the tensors lie of the files that transformers' ``from_pretrained`` would read.

    Raises:
        BadInput: no such weights, a file that is missing, elsewhere or not whole, a tensor that is there twice, or not.
    """
    files, listed = _weight_files(folder)
    tensors: dict[str, TensorAt] = {}
    for file in files:
        for tensor in read_header(file):
            if (other := tensors.get(tensor.name)) is not None:
                where = f"in {other.path.name} and in {file.name}"
                raise BadInput(f"tensor '{tensor.name}' is there twice, {where}", place=str(folder))
            tensors[tensor.name] = tensor
    if lost := sorted(listed - tensors.keys()):
        count = f"{len(lost)} tensors" if len(lost) > 1 else "a tensor"
        raise BadInput(f"no shard has {count} that {INDEX} lists: '{lost[0]}'", place=str(folder))
    return Folder(folder, tuple(files), tensors)


def _weight_files(folder: Path) -> tuple[list[Path], set[str]]:
    """The files, and the names of tensors that they have to hold."""
    if not folder.is_dir():
        raise BadInput("there is no such folder", place=str(folder))
    if (folder / SINGLE).is_file():
        return [folder / SINGLE], set()
    if (folder / INDEX).is_file():
        return _shards(folder)
    pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
    hint = "pickled weights are not read: save them with safe_serialization" if pickled else None
    raise BadInput(f"{SINGLE} is missing", place=str(folder), hint=hint)


def _shards(folder: Path) -> tuple[list[Path], set[str]]:
    try:
        index: Any = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise BadInput(f"{INDEX} is not JSON", place=str(folder), hint="was it cut off?") from None
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(shard, str) for shard in names.values()):
        raise BadInput(f"{INDEX} has no weight_map", place=str(folder), hint="was it cut off?")
    files = []
    for shard in sorted(set(names.values())):  # the order of transformers
        if Path(shard).name != shard or shard in ("", ".."):
            raise BadInput(f"shard '{shard}' lies outside the folder", place=str(folder))
        if not (folder / shard).is_file():
            raise BadInput(f"{shard} is missing", place=str(folder))
        files.append(folder / shard)
    return files, set(names)


def read_header(file: Path) -> list[TensorAt]:
    """The tensors of a safetensors file, by offset.

    What the library refuses on opening is refused: it is not asked, as it imports numpy to answer, which takes longer
    than to read the files of a small model.

    Raises:
        BadInput: the file is not whole, or is not one of safetensors.
    """
    try:
        with open(file, "rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            stored = opened.seek(0, 2)
            if stored < 8 or length > min(MOST_HEADER_BYTES, stored - 8):
                raise _Unreadable(f"it has {stored:,} bytes, its header alone {length:,}")
            opened.seek(8)
            tensors = _parse(file, opened.read(length))
        end = 8 + length
        for tensor in tensors:
            if tensor.offset != end:
                raise _Unreadable(f"tensor '{tensor.name}' does not begin where the one before it ends")
            end += tensor.nbytes
        if stored != end:
            raise _Unreadable(f"it has {stored:,} bytes where its header says {end:,}")
    except OSError as error:
        raise BadInput(f"{file.name} cannot be read: {error.strerror}", place=str(file.parent)) from None
    except _Unreadable as error:
        hint = "was it cut off, or is it no safetensors file?"
        raise BadInput(f"{file.name} cannot be read: {error}", place=str(file.parent), hint=hint) from None
    return tensors


class _Unreadable(Exception):
    """Why a file is not one of safetensors, or not whole."""


def _parse(file: Path, header: bytes) -> list[TensorAt]:
    """The tensors that a header lists, by offset."""
    try:
        content = json.loads(header.decode())
    except (ValueError, RecursionError):
        raise _Unreadable("its header is not JSON") from None
    if not header.startswith(b"{"):
        raise _Unreadable("its header is not a table")
    metadata = content.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _Unreadable("its metadata are not texts")
    tensors = [_tensor(file, 8 + len(header), name, entry) for name, entry in content.items()]
    return sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes))


def _tensor(file: Path, start: int, name: str, entry: Any) -> TensorAt:
    try:
        dtype, shape, (first, last) = entry["dtype"], entry["shape"], entry["data_offsets"]
        bits = BITS.get(dtype)
    except (KeyError, TypeError, ValueError):
        raise _Unreadable(f"its header says too little of tensor '{name}'") from None
    if bits is None:
        raise _Unreadable(f"tensor '{name}' is of the unknown type '{dtype}'")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in (*shape, first, last)):
        raise _Unreadable(f"its header gives tensor '{name}' no place")
    if 8 * (last - first) != math.prod(shape) * bits:
        raise _Unreadable(f"tensor '{name}' has {last - first:,} bytes, which are too many or too few for its shape")
    return TensorAt(file, name, dtype, tuple(shape), start + first, last - first)
