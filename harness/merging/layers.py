"""Which tensors of a model belong to one layer: those that one module holds."""

from __future__ import annotations

from collections.abc import Iterable


def layer_of(name: str) -> str:
    """The layer of a tensor: ``head.2.weight`` and ``head.2.bias`` are both of ``head.2``."""
    return name.rpartition(".")[0]


def layers_of(names: Iterable[str]) -> list[str]:
    """The layers that hold these tensors, each once, in the order in which they are first met."""
    return list(dict.fromkeys(layer_of(name) for name in names))
