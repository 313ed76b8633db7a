"""The weights of a network that a user's function builds, as a file of the user's holds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from torch import Tensor

from harness.models.own_checks import tensors_of
from harness.models.weights import LazyWeights
from harness.types import Architecture


class OwnWeights(Mapping[str, Tensor]):
    """The tensors of a safetensors file, each tied one under its first name in the network, whatever the file calls it.

    They are read when asked for, in the precision that they are stored in. To know their names the network is built.
    """

    def __init__(self, file: Path, architecture: Architecture) -> None:
        self.file, self.architecture = file, architecture

    @cached_property
    def _stored(self) -> LazyWeights:
        return LazyWeights(self.file)

    @cached_property
    def _names(self) -> dict[str, str]:
        """The names in the file, by those in the network."""
        known = tensors_of(self.architecture).names
        return {first: next((name for name in names if name in self._stored), first) for first, names in known.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._stored[self._names[name]]

    def __contains__(self, name: object) -> bool:
        return name in self._names  # a mapping's own would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
