"""Where the tensors of a merge go: into memory, or, of a model that does not fit, into a temporary file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

import torch
from torch import Tensor

from harness.models.room import fits, give_back

UNASKED = 1 << 26
"""Bytes of tensors that are held without asking whether they fit."""


class Results(MutableMapping[str, Tensor]):
    """Tensors by name: in memory while as much again would fit, then all of them in a file.

    The file has no name and goes with them; a tensor in it is read when it is asked for.
    """

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}
        self._nbytes = self._asked = 0
        self._spilled: _Spilled | None = None

    @property
    def _where(self) -> MutableMapping[str, Tensor]:
        return self._held if self._spilled is None else self._spilled

    def __setitem__(self, name: str, tensor: Tensor) -> None:
        self._where[name] = tensor
        self._nbytes += tensor.nbytes
        if self._spilled is None and self._nbytes - self._asked > UNASKED:
            self._asked = self._nbytes
            if not fits(self._nbytes):
                self._spilled = _Spilled()
                self._spilled.update(self._held)
                self._held.clear()
                give_back()

    def __getitem__(self, name: str) -> Tensor:
        return self._where[name]

    def __contains__(self, name: object) -> bool:
        return name in self._where

    def __delitem__(self, name: str) -> None:
        del self._where[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def done(self) -> Mapping[str, Tensor]:
        """All of them: a dictionary where they are in memory."""
        return self._held if self._spilled is None else self._spilled


class _Spilled(MutableMapping[str, Tensor]):
    """Tensors in a temporary file."""

    def __init__(self) -> None:
        lasting = Path("/var/tmp")  # /tmp is memory on many machines
        folder = str(lasting) if "TMPDIR" not in os.environ and lasting.is_dir() else None
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (it lives as long as this)
        self._places: dict[str, tuple[int, torch.dtype, torch.Size]] = {}

    def __setitem__(self, name: str, tensor: Tensor) -> None:
        """A tensor that takes the place of another leaves the room of that one unused."""
        at = self._file.seek(0, os.SEEK_END)
        left = _bytes_of(tensor.detach().cpu().contiguous())
        while left:
            left = left[self._file.write(left) :]
        self._places[name] = at, tensor.dtype, tensor.shape

    def __getitem__(self, name: str) -> Tensor:
        at, dtype, shape = self._places[name]
        tensor = torch.empty(shape, dtype=dtype)
        self._file.seek(at)
        left = _bytes_of(tensor)
        while left:
            if not (read := self._file.readinto(left)):
                raise OSError(f"the temporary file of '{name}' is cut off")
            left = left[read:]
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._places  # a mapping's own would read the tensor

    def __delitem__(self, name: str) -> None:
        del self._places[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a tensor that lies in order."""
    return tensor.view(-1).view(torch.uint8).numpy().data if tensor.numel() else memoryview(b"")
