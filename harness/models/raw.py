"""Raw examples, texts or images as they lie in a file: a batch says where the bytes of each are, and models read them.

So each model sees an example through its own tokenizer or image processor, and a batch is small whatever it is of.
"""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

_opened: dict[int, tuple[Path, mmap.mmap]] = {}
_held: dict[int, Sequence[bytes]] = {}
_numbers = itertools.count(-1, -1)


def write_blob(contents: Iterable[bytes], path: Path) -> Tensor:
    """Write examples one after another to a file, as they come; where each lies in it, int64 [N, 2] (offset, length).
    """
    with path.open("wb") as file:
        lengths = torch.tensor([file.write(content) for content in contents], dtype=torch.int64)
    return torch.stack([lengths.cumsum(0) - lengths, lengths], dim=1)


def rows_of(path: Path, digest: str, places: Tensor) -> Tensor:
    """The examples of a file as inputs of a split, int64 [N, 3]: which file, offset, length.

    The file is known from now on in this process, by its digest: whoever runs a model on examples has loaded their
    task first.

    Args:
        path: of the file, which stays as it is.
        digest: of its contents, in hexadecimal.
        places: [N, 2], as ``write_blob`` gives them.
    """
    number = int(digest[:15], 16)
    if number not in _opened:
        with path.open("rb") as file:
            _opened[number] = path, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return torch.cat([torch.full((len(places), 1), number, dtype=torch.int64), places], dim=1)


@contextmanager
def held(examples: Sequence[bytes]) -> Iterator[Tensor]:
    """A batch [B, 3] of examples that lie in no file, such as what one model made for the next; gone afterwards."""
    number = next(_numbers)
    _held[number] = examples
    try:
        yield torch.tensor([[number, row, len(example)] for row, example in enumerate(examples)], dtype=torch.int64)
    finally:
        del _held[number]


def contents(batch: Tensor) -> list[bytes]:
    """The bytes of each example of a batch [B, 3]."""
    return [
        _held[number][offset] if number < 0 else _opened[number][1][offset : offset + length]
        for number, offset, length in batch.tolist()
    ]
