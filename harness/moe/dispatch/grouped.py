"""Grouped product: ``torch.nn.functional.grouped_mm`` runs the products of all experts in one call."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from harness.moe.dispatch.dispatch import dispatch, needs_stacked
from harness.moe.dispatch.order import by_expert, combine, gather
from harness.moe.dispatch.trial import fault
from harness.moe.experts import Experts, StackedExperts
from harness.moe.routing import Routing

ALIGNED = 16
"""Bytes that a row of every matrix must be a multiple of."""


def _unavailable(experts: Experts, x: Tensor) -> str | None:
    if not isinstance(experts, StackedExperts):
        return needs_stacked(experts)
    sizes = {size for weight, _ in experts.layers() for size in weight.shape[1:]}
    if odd := sorted(size for size in sizes if size * x.element_size() % ALIGNED):
        return f"a row of {odd[0]} numbers is no multiple of {ALIGNED} bytes, as grouped_mm needs it"
    if why := fault(grouped.run, x.device, x.dtype):
        return f"torch's grouped_mm has no product of {x.dtype} on {x.device.type} ({why})"
    return None


@dispatch("grouped", summary="torch's grouped_mm: the products of all experts in one call", unavailable=_unavailable)
def grouped(experts: Experts, x: Tensor, routing: Routing) -> Tensor:
    assert isinstance(experts, StackedExperts)
    order = by_expert(routing)
    rows = gather(x, order)
    ends = order.ends.to(torch.int32)
    dropped = 0
    if routing.kept is not None:  # without a capacity no number leaves the device
        dropped = len(rows) - int(ends[-1])
        rows = rows[: len(rows) - dropped]
    expert = torch.arange(experts.count, device=x.device).repeat_interleave(order.counts, output_size=len(rows))

    def linear(left: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        product = functional.grouped_mm(left, weight.transpose(1, 2), offs=ends)
        return product if bias is None else product + bias.index_select(0, expert)

    results = experts.run(rows, linear)
    return combine(functional.pad(results, (0, 0, 0, dropped)) if dropped else results, routing.weights, order)
