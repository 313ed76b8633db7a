"""Sparse matrices: rows sorted by expert form a block-diagonal matrix in CSR, whose zeros are skipped.

A sorted row of expert e stands in the columns of e, so one product of a sparse [S, E in] with the stacked weights
[E in, out] runs all experts: cuSPARSE on a GPU, MKL on a CPU.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from harness.moe.dispatch.dispatch import dispatch, needs_stacked
from harness.moe.dispatch.order import by_expert, combine, gather
from harness.moe.dispatch.trial import fault
from harness.moe.experts import Experts, StackedExperts
from harness.moe.routing import Routing


def _unavailable(experts: Experts, x: Tensor) -> str | None:
    if why := needs_stacked(experts):
        return why
    if why := fault(sparse.run, x.device, x.dtype):
        return f"torch has no product of a CSR matrix of {x.dtype} on {x.device.type} ({why})"
    return None


@dispatch(
    "sparse",
    summary="a block-diagonal sparse matrix of the rows (CSR) by the stacked weights",
    unavailable=_unavailable,
)
def sparse(experts: Experts, x: Tensor, routing: Routing) -> Tensor:
    assert isinstance(experts, StackedExperts)
    order = by_expert(routing)
    rows = gather(x, order)
    kept = len(rows) if routing.kept is None else int(order.ends[-1])
    expert = torch.arange(experts.count, device=x.device).repeat_interleave(order.counts, output_size=kept)

    def linear(left: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        product = _Product.apply(left, weight, expert)
        return product if bias is None else product + bias.index_select(0, expert)

    results = experts.run(rows[:kept], linear)
    return combine(torch.nn.functional.pad(results, (0, 0, 0, len(rows) - kept)), routing.weights, order)


class _Product(torch.autograd.Function):
    """Each row [S, in] by the weight [out, in] of its expert."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, expert: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight, expert)
        return _matrix(rows, expert, len(weight)) @ weight.transpose(1, 2).reshape(-1, weight.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, expert = ctx.saved_tensors
        matrix = _matrix(grad, expert, len(weight))  # [S, E out]
        by_rows = matrix @ weight.reshape(-1, weight.shape[2]) if ctx.needs_input_grad[0] else None
        by_weight = (matrix.t() @ rows).view_as(weight) if ctx.needs_input_grad[1] else None
        return by_rows, by_weight, None


def _matrix(rows: Tensor, expert: Tensor, experts: int) -> Tensor:
    """[S, E width] in CSR: each row [width] in the columns of its expert."""
    count, width = rows.shape
    index = torch.int32 if count * width < 2**31 else torch.int64  # MKL as torch has it takes 32 bits only
    starts = torch.arange(count + 1, device=rows.device) * width
    columns = (expert * width).unsqueeze(-1) + torch.arange(width, device=rows.device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Ss]parse.*beta state", category=UserWarning)
        return torch.sparse_csr_tensor(
            starts.to(index),
            columns.flatten().to(index),
            rows.flatten(),
            (count, experts * width),
            check_invariants=False,
        )
