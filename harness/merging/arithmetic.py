"""Streaming arithmetic on state dicts: one tensor of every member at a time, accumulated in float32, cast once.

A state dict may be lazy (a tensor is read from disk when asked for): each tensor is read once per merge, and no more
than one tensor of each member is held. A result that does not fit in memory is put in a file.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from harness.merging.spilled import Results

Weights = Mapping[str, Tensor]
Place = tuple[int, tuple[int, ...], tuple[int, ...]]


def streamed(models: Sequence[Weights], combine: Callable[[list[Tensor]], Tensor]) -> Weights:
    """Apply ``combine`` to each floating-point tensor of all models.

    ``combine`` gets float32 (or wider) tensors and its result is cast to the dtype of the first model's. Tensors that
    are not floating point are counters and indices: the first model's are copied. Names that share storage in the
    first model (tied weights) are combined once and share storage in the result.
    """
    result = Results()
    tied: dict[Place, str] = {}
    held: list[Tensor] = []  # keeps lazily read tensors alive, or a freed address could pass for a tie
    in_memory = isinstance(models[0], dict)
    for name in models[0]:
        first = models[0][name]
        if in_memory:
            place = _place(first)
            if first.numel() and place in tied:
                result[name] = result[tied[place]]
                continue
            tied[place] = name
            held.append(first)
        if not first.is_floating_point():
            result[name] = first.clone()
            continue
        wide = torch.promote_types(first.dtype, torch.float32)
        result[name] = combine([first.to(wide), *(model[name].to(wide) for model in models[1:])]).to(first.dtype)
    return result.done()


def weighted_sum(models: Sequence[Weights], coefficients: Sequence[float]) -> Weights:
    """``sum_k c_k theta_k``; one whose coefficient is 0 is not touched, and (1, 0, ...) is the first, bit for bit."""
    if len(models) != len(coefficients):
        raise ValueError(f"{len(models)} models but {len(coefficients)} coefficients")
    used = [(model, c) for model, c in zip(models, coefficients, strict=True) if c] or [(models[0], 0.0)]

    def combine(tensors: list[Tensor]) -> Tensor:
        total = tensors[0] * used[0][1]
        for tensor, (_, coefficient) in zip(tensors[1:], used[1:], strict=True):
            total.add_(tensor, alpha=coefficient)
        return total

    return streamed([model for model, _ in used], combine)


def average(models: Sequence[Weights]) -> Weights:
    """The uniform mean, as ``theta_1 + mean_k (theta_k - theta_1)``.

    Written this way copies of one model give that model bit for bit, and what is rounded is the small differences.
    """

    def combine(tensors: list[Tensor]) -> Tensor:
        first = tensors[0]
        total = torch.zeros_like(first)
        for tensor in tensors[1:]:
            total.add_(tensor - first)
        return total.div_(len(tensors)).add_(first)

    return streamed(models, combine)


def first_of(*models: Weights) -> Weights:
    """The tensors of several models, of each name the first that there is."""
    return ChainMap(*models)  # type: ignore[arg-type]  # which is only read


def substituted(model: Weights, tensors: Mapping[str, Tensor]) -> Weights:
    """The model with these floating-point tensors in place of its own, in its dtypes; tied names follow the first."""
    names = iter(list(floating_names(model)))
    return streamed([model], lambda own: tensors.get(next(names), own[0]))


def floating_names(model: Weights) -> Iterator[str]:
    """The names of the floating-point tensors, each tied tensor once, in the model's order."""
    seen: set[Place] = set()
    for name in model:
        tensor = model[name]
        if not tensor.is_floating_point():
            continue
        if isinstance(model, dict) and tensor.numel():
            place = _place(tensor)
            if place in seen:
                continue
            seen.add(place)
        yield name


def _place(tensor: Tensor) -> Place:
    """The same for two names exactly if they show the same elements in the same order: a transposed view does not."""
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride()
