"""Sparse matrices of blocks (BSR): as ``sparse``, with each expert's rows padded to whole square blocks."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from harness.moe.dispatch.dispatch import dispatch, needs_stacked
from harness.moe.dispatch.order import by_expert, combine, gather
from harness.moe.dispatch.trial import fault
from harness.moe.experts import Experts, StackedExperts
from harness.moe.routing import Routing

BLOCKS = (64, 32, 16)
"""Sides of a block; the largest that divides all sizes is taken."""


def _unavailable(experts: Experts, x: Tensor) -> str | None:
    if not isinstance(experts, StackedExperts):
        return needs_stacked(experts)
    if _side(experts) is None:
        return f"its sizes have no common block of {BLOCKS[-1]}"
    if why := fault(sparse_blocks.run, x.device, x.dtype):
        return f"torch has no product of a BSR matrix of {x.dtype} on {x.device.type} ({why})"
    return None


def _side(experts: StackedExperts) -> int | None:
    sizes = [size for weight, _ in experts.layers() for size in weight.shape[1:]]
    return next((side for side in BLOCKS if all(size % side == 0 for size in sizes)), None)


@dispatch(
    "sparse_blocks",
    summary="the same in square blocks (BSR), each expert's rows padded to whole ones",
    unavailable=_unavailable,
)
def sparse_blocks(experts: Experts, x: Tensor, routing: Routing) -> Tensor:
    assert isinstance(experts, StackedExperts)
    side = _side(experts)
    assert side is not None
    order = by_expert(routing)
    rows = gather(x, order)
    counts = order.counts
    blocks = -(-counts // side)  # of rows, for each expert
    before = (blocks.cumsum(dim=0) - blocks) * side - (order.ends - counts)
    numbers = torch.arange(experts.count, device=x.device)
    expert = numbers.repeat_interleave(counts)  # [kept]
    target = torch.arange(len(expert), device=x.device) + before[expert]  # where each sorted row lies among the padded
    layout = _Layout(side, numbers.repeat_interleave(blocks))
    padded = x.new_zeros(len(layout.expert) * side, x.shape[1]).index_copy(0, target, rows[: len(expert)])

    def linear(left: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        product = _Product.apply(left, weight, layout)
        return product if bias is None else product + bias[layout.expert].repeat_interleave(side, dim=0)

    results = experts.run(padded, linear).index_select(0, target)
    return combine(torch.nn.functional.pad(results, (0, 0, 0, len(rows) - len(expert))), routing.weights, order)


@dataclass(frozen=True)
class _Layout:
    side: int
    expert: Tensor
    """[R]: the expert of each block of rows."""


class _Product(torch.autograd.Function):
    """Each padded row [R side, in] by the weight [out, in] of its expert."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, layout: _Layout) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.layout = layout
        return _matrix(rows, layout, len(weight)) @ weight.transpose(1, 2).reshape(-1, weight.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (rows, weight), layout = ctx.saved_tensors, ctx.layout
        by_rows = by_weight = None
        if ctx.needs_input_grad[0]:
            by_rows = _matrix(grad, layout, len(weight)) @ weight.reshape(-1, weight.shape[2])
        if ctx.needs_input_grad[1]:
            by_weight = (_transposed(grad, layout, len(weight)) @ rows).view_as(weight)
        return by_rows, by_weight, None


def _blocks(rows: Tensor, side: int) -> Tensor:
    """[R side, C side] as blocks [R, C, side, side]."""
    return rows.reshape(-1, side, rows.shape[1] // side, side).transpose(1, 2)


def _matrix(rows: Tensor, layout: _Layout, experts: int) -> Tensor:
    """[R side, E width] in BSR: each block of rows in the columns of its expert."""
    side, width = layout.side, rows.shape[1] // layout.side
    device = rows.device
    starts = torch.arange(len(layout.expert) + 1, device=device) * width
    columns = (layout.expert * width).unsqueeze(-1) + torch.arange(width, device=device)
    values = _blocks(rows, side).reshape(-1, side, side)
    return _bsr(starts, columns.flatten(), values, (len(rows), experts * rows.shape[1]))


def _transposed(rows: Tensor, layout: _Layout, experts: int) -> Tensor:
    """[E width, R side] in BSR: the transpose of ``_matrix``, since products take no transposed blocks."""
    side, width = layout.side, rows.shape[1] // layout.side
    device = rows.device
    number = torch.arange(len(layout.expert), device=device)
    line = (layout.expert * width).unsqueeze(-1) + torch.arange(width, device=device)  # [R, width]: its row of blocks
    order = line.flatten().argsort(stable=True)
    columns = number.unsqueeze(-1).expand_as(line).flatten()[order]
    starts = torch.nn.functional.pad(torch.bincount(line.flatten(), minlength=experts * width).cumsum(dim=0), (1, 0))
    values = _blocks(rows, side).reshape(-1, side, side)[order].transpose(1, 2).contiguous()
    return _bsr(starts, columns, values, (experts * rows.shape[1], len(rows)))


def _bsr(starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Ss]parse.*beta state", category=UserWarning)
        return torch.sparse_bsr_tensor(
            starts.to(torch.int32), columns.to(torch.int32), values, shape, check_invariants=False
        )
