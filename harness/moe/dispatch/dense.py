"""The reference: every expert on every row, and the gates' zeros for what was not chosen."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.moe.dispatch.dispatch import dispatch
from harness.moe.experts import Experts, StackedExperts
from harness.moe.routing import Routing


@dispatch("dense", summary="every expert on every row, weighted by the gates: the plain reference", every_expert=True)
def dense(experts: Experts, x: Tensor, routing: Routing) -> Tensor:
    if isinstance(experts, StackedExperts):
        each = experts.run(x.expand(experts.count, *x.shape), _batched)
    else:
        each = torch.stack([expert(x) for expert in experts.each(x.dtype)])  # [E, N, outputs]
    return torch.einsum("ne,eno->no", routing.gates().to(each.dtype), each).to(x.dtype)


def _batched(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[E, N, in] by the weights [E, out, in] of each expert."""
    weight = weight.transpose(1, 2)
    return torch.bmm(rows, weight) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, weight)
