"""Folders of safetensors: which files hold a model's weights, and where in them each tensor lies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.streaming.plan import TensorAt

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


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
        if Path(shard).name != shard:
            raise BadInput(f"shard '{shard}' lies outside the folder", place=str(folder))
        if not (folder / shard).is_file():
            raise BadInput(f"{shard} is missing", place=str(folder))
        files.append(folder / shard)
    return files, set(names)


def read_header(file: Path) -> list[TensorAt]:
    """The tensors of a safetensors file, by offset; ``BadInput`` where the file is not whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np"):  # its checks: sizes, types, offsets without holes
            pass
        with open(file, "rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length))
            stored = opened.seek(0, 2)
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        problem = f"{file.name} cannot be read: {reason}"
        raise BadInput(problem, place=str(file.parent), hint="was it cut off?") from None
    header.pop("__metadata__", None)
    start = 8 + length
    tensors = [
        TensorAt(
            path=file,
            name=name,
            dtype=entry["dtype"],
            shape=tuple(entry["shape"]),
            offset=start + entry["data_offsets"][0],
            nbytes=entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for name, entry in header.items()
    ]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.nbytes))
    whole = max((tensor.offset + tensor.nbytes for tensor in tensors), default=start)
    if stored != whole:  # a file may have been cut off since
        problem = f"{file.name} has {stored:,} bytes where its header says {whole:,}"
        raise BadInput(problem, place=str(file.parent), hint="was it cut off?")
    return tensors
