"""A merge as data: which tensors are written, and from which tensors of which files each is made, by which rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes of an element, by safetensors' names of types; types that are not here are not merged, only copied."""

FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class TensorAt:
    """Where a tensor lies: ``nbytes`` bytes from ``offset`` on in a file, contiguous, the last axis quickest."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS


@dataclass(frozen=True)
class Adapted:
    """A tensor with the product of an adapter's two matrices added: ``tensor + scale * b @ a``, or its transpose."""

    tensor: TensorAt
    a: TensorAt
    b: TensorAt
    scale: float
    transposed: bool = False

    @property
    def dtype(self) -> str:
        return self.tensor.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def is_float(self) -> bool:
        return True


Source = TensorAt | Adapted


@dataclass(frozen=True)
class Step:
    """One tensor of the output.

    ``rule`` is a name of ``rules.RULES``, or "copy": the one source, cast to ``dtype``. ``shared`` has the values of
    the rule's shared parameters; ``each`` has, for a parameter of sources or fine-tunes, one value for each source (the
    base's is None where it has none). ``draws`` identifies each source for rules that draw at random: a mask depends on
    the seed, on that and on the tensor's name, and on nothing else.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    sources: tuple[Source, ...]
    rule: str
    base: int | None = None
    shared: Mapping[str, Any] = field(default_factory=dict)
    each: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    draws: tuple[str, ...] = ()
    seed: int = 0

    @property
    def size(self) -> int:
        """Elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * BYTES[self.dtype]


@dataclass(frozen=True)
class Plan:
    """All tensors of an output, in the order in which they are written."""

    steps: tuple[Step, ...]
    metadata: Mapping[str, str] = field(default_factory=lambda: {"format": "pt"})
