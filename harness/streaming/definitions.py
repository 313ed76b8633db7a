"""What each rule computes, on whole tensors: the definition by which everything that is quicker is judged.

Source: mergekit 0.1.5, to the rounding of float32. What mergekit leaves to chance is settled here: which of equal
magnitudes counts as the larger, the way between opposite vectors, the sign of a sum of almost 0 (that of float64).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from harness.merging.sparsify import largest
from harness.merging.ties import MERGEKIT, merge_vectors
from harness.streaming.angles import coefficient_rows, coefficients, needs_gram
from harness.streaming.plan import Step
from harness.streaming.sparse_sums import combine_task_vectors, sum_of_weights

_BLOCK = 1 << 18
"""Elements of a tensor that are widened to float64 at a time."""


def combine(step: Step, tensors: Sequence[Tensor]) -> Tensor:
    """The merged tensor of a step, in float32, or float64 where its tensors are.

    Args:
        step: of any rule but "copy"; ``checking.check`` says whether its values have a meaning.
        tensors: the sources', in the step's order and all of one shape and type. They are read only, and the result may
            be one of them.
    """
    if not tensors[0].numel():
        return tensors[0]
    return _RULES[step.rule](step, tensors)


def _linear(step: Step, tensors: Sequence[Tensor]) -> Tensor:
    weights = [float(weight) for weight in step.each["weight"]]
    total = tensors[0] * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        total.add_(tensor, alpha=weight)
    return total.div_(sum_of_weights(weights, total)) if step.shared["normalize"] else total


def _passthrough(step: Step, tensors: Sequence[Tensor]) -> Tensor:
    scale = step.each["scale"][0]
    return tensors[0] if scale is None else tensors[0] * scale


def _nearswap(step: Step, tensors: Sequence[Tensor]) -> Tensor:
    base, other = _base_and_other(step, tensors)
    share = (base - other).abs_().clamp_(min=1e-6).reciprocal_().mul_(step.shared["t"]).clamp_(0, 1)
    rest = (1 - share).mul_(base)
    return share.mul_(other).add_(rest)


def _arcee_fusion(step: Step, tensors: Sequence[Tensor]) -> Tensor:
    """Changes that are unusually important: the change's size times the divergence of the row's softmax.

    The quartiles that say what is unusual are exact whatever the tensor's size; mergekit estimates them from a million
    random elements where there are more.
    """
    base, other = _base_and_other(step, tensors)
    change = other - base
    after, before = (functional.softmax(tensor, dim=-1).add_(1e-8) for tensor in (other, base))
    divergence = torch.div(after, before, out=before).log_().mul_(after).sum(dim=-1, keepdim=True)
    importance = change.abs() * divergence
    last = importance.numel() - 1
    places = [last // 4, last // 2, 3 * last // 4]
    first, median, third = torch.from_numpy(np.partition(importance.flatten().numpy(), places)[places])
    return base + change.mul_(importance >= median + 1.5 * (third - first))


def _sce(step: Step, tensors: Sequence[Tensor]) -> Tensor:
    """Select the elements that vary most, calculate each model's weight from its energy there, erase minorities."""
    base, tuned = _base_and_others(step, tensors)
    if not tuned:
        return base
    vectors = torch.stack([(tensor - base).flatten() for tensor in tuned])  # [M, d]
    share = step.shared["select_topk"]
    if share < 1:
        variance = vectors.var(dim=0, unbiased=False)
        count = int(torch.count_nonzero(variance) * share)  # in float32, whose rounding decides how many
        vectors.mul_(largest(variance, max(0, count)))
    energies = [_sum_of_squares(vector) / vector.numel() for vector in vectors]
    total = sum(energies)
    weights = [energy / total if total >= 1e-6 else 1 / len(tuned) for energy in energies]
    merged = merge_vectors(vectors, replace(MERGEKIT, weigh="after"), weights, least_divisor=1e-6)
    return merged.view(base.shape).add_(base)


def _angular(step: Step, tensors: Sequence[Tensor]) -> Tensor:
    """By the angles of whole tensors, or of rows: of what differs in one axis alone, the last or the first."""
    shape = tensors[0].shape
    if (between := needs_gram(step.rule, step.shared)) or not shape:
        rows = [tensor.reshape(1, -1) for tensor in tensors]
        return _sum_of_rows(step, rows, between != "sources").view(shape)
    first_axis = bool(step.shared.get("nuslerp_row_wise"))
    turned = [tensor.transpose(0, -1) if first_axis else tensor for tensor in tensors]
    rows = [tensor.reshape(-1, tensor.shape[-1]) for tensor in turned]
    total = _sum_of_rows(step, rows, differences=True).view(turned[0].shape)
    return total.transpose(0, -1) if first_axis else total


def _sum_of_rows(step: Step, tables: Sequence[Tensor], differences: bool) -> Tensor:
    """The weighted sum of tables [U, n], each row with the coefficients that its own inner products give."""
    grams = _grams(tables, step.base if differences else None)
    factors = coefficients(step, grams[0]) if len(grams) == 1 else coefficient_rows(step, grams).T[..., None]
    wide = torch.as_tensor(np.asarray(factors), dtype=tables[0].dtype).reshape(len(tables), -1, 1)
    total = tables[0] * wide[0]
    for table, factor in zip(tables[1:], wide[1:], strict=True):
        total.addcmul_(table, factor)
    return total


def _grams(tables: Sequence[Tensor], base: int | None) -> np.ndarray:
    """The inner products [U, S, S] in float64 of each row of S tables [U, n], or of its differences from the base's."""
    height, width = tables[0].shape
    found = torch.zeros(height, len(tables), len(tables), dtype=torch.float64)
    at_once = max(1, _BLOCK // width)
    for top in range(0, height, at_once):
        for left in range(0, width, _BLOCK):
            pieces = [table[top : top + at_once, left : left + _BLOCK] for table in tables]
            if base is not None:
                pieces = [piece - pieces[base] for piece in pieces]
            block = torch.stack(pieces, dim=1).double()  # [u, S, c]
            found[top : top + at_once] += block @ block.transpose(1, 2)
    return found.numpy()


def _sum_of_squares(vector: Tensor) -> float:
    return sum(float(block.double().square().sum()) for block in vector.split(_BLOCK))


def _base_and_others(step: Step, tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    assert step.base is not None
    return tensors[step.base], [tensor for i, tensor in enumerate(tensors) if i != step.base]


def _base_and_other(step: Step, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    base, (other,) = _base_and_others(step, tensors)
    return base, other


_RULES: dict[str, Callable[[Step, Sequence[Tensor]], Tensor]] = {
    "linear": _linear,
    "slerp": _angular,
    "nuslerp": _angular,
    "task_arithmetic": combine_task_vectors,
    "ties": combine_task_vectors,
    "dare_linear": combine_task_vectors,
    "dare_ties": combine_task_vectors,
    "della": combine_task_vectors,
    "della_linear": combine_task_vectors,
    "breadcrumbs": combine_task_vectors,
    "breadcrumbs_ties": combine_task_vectors,
    "model_stock": _angular,
    "karcher": _angular,
    "sce": _sce,
    "arcee_fusion": _arcee_fusion,
    "nearswap": _nearswap,
    "passthrough": _passthrough,
}
