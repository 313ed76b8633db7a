"""Whole tensors as torch has them, for what has no compiled function: read from their files, and merged."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.streaming.kernels import cut_off, not_finite, too_large
from harness.streaming.plan import Adapted, Source, Step, TensorAt

if TYPE_CHECKING:
    from harness.streaming.kernels import Sources

TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""torch's types by safetensors' names."""


def read(tensor: TensorAt, files: Sources) -> Tensor:
    """A tensor, whole, in its own type.

    Raises:
        BadInput: the file ends before the tensor does.
    """
    data = bytearray(tensor.nbytes)
    view, done = memoryview(data), 0
    while done < tensor.nbytes:
        got = os.preadv(files.fd(tensor), [view[done:]], tensor.offset + done)
        if not got:
            raise cut_off(tensor)
        done += got
    kind = TORCH[tensor.dtype]
    return torch.frombuffer(data, dtype=kind).view(tensor.shape) if data else torch.empty(tensor.shape, dtype=kind)


def read_source(source: Source, files: Sources, kind: torch.dtype) -> Tensor:
    """A source in a type of floats, an adapter's product added in it.

    Raises:
        BadInput: a file that is cut off, NaN or infinity.
    """
    if isinstance(source, Adapted):
        tensor, a, b = (read_source(part, files, kind) for part in (source.tensor, source.a, source.b))
        product = b.flatten(1) @ a.flatten(1)
        return tensor.add_((product.T if source.transposed else product).reshape(tensor.shape), alpha=source.scale)
    tensor = read(source, files).to(kind)
    if not torch.isfinite(tensor).all():
        raise not_finite(source)
    return tensor


def cast(tensor: Tensor, kind: torch.dtype, name: str) -> Tensor:
    """A tensor in another type; what is not finite stays so.

    Raises:
        BadInput: something that is finite would become infinite.
    """
    made = tensor.to(kind)
    if kind != tensor.dtype and bool((made.isinf() & ~tensor.isinf()).any()):
        raise too_large(name)
    return made


def merge(step: Step, files: Sources) -> Tensor:
    """The result of a step in the type it is written in.

    Raises:
        BadInput: see ``read_source``; also a result that its type cannot hold.
    """
    if step.rule == "copy" and isinstance(step.sources[0], TensorAt):
        return cast(read(step.sources[0], files), TORCH[step.dtype], step.name)
    kind = torch.float64 if any(source.dtype == "F64" for source in step.sources) else torch.float32
    tensors = [read_source(source, files, kind) for source in step.sources]
    merged = tensors[0]
    if step.rule != "copy":
        from harness.streaming.definitions import combine

        merged = combine(step, tensors)
    merged = merged.to(TORCH[step.dtype])
    if not torch.isfinite(merged).all():
        raise too_large(step.name)
    return merged


def content(tensor: Tensor) -> memoryview:
    """The bytes of a tensor."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().data
