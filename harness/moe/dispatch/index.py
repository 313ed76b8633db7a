"""Index loop: each expert picks its rows and adds its results to theirs; nothing is sorted, which few rows repay."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.moe.dispatch.dispatch import dispatch
from harness.moe.experts import Experts
from harness.moe.routing import Routing


@dispatch("index", summary="a loop over the experts that picks and adds their rows by index: for few rows")
def index_loop(experts: Experts, x: Tensor, routing: Routing) -> Tensor:
    rows_of: list[list[int]] = [[] for _ in range(experts.count)]
    slots_of: list[list[int]] = [[] for _ in range(experts.count)]
    kept = None if routing.kept is None else routing.kept.tolist()
    for row, chosen in enumerate(routing.chosen.tolist()):
        for slot, expert in enumerate(chosen):
            if kept is None or kept[row][slot]:
                rows_of[expert].append(row)
                slots_of[expert].append(slot)
    weights = routing.weights.to(x.dtype)
    results = [weights[:0, :1] * x.new_zeros(0, experts.outputs)]  # so that no pairs are a result with gradients too
    for expert, rows, slots in zip(experts.each(x.dtype), rows_of, slots_of, strict=True):
        if rows:
            at = torch.tensor(rows, device=x.device)
            weight = weights[at, torch.tensor(slots, device=x.device)]
            results.append((expert(x.index_select(0, at)) * weight.unsqueeze(-1)).to(x.dtype))
    pairs = torch.tensor([row for rows in rows_of for row in rows], device=x.device, dtype=torch.int64)
    return x.new_zeros(len(x), experts.outputs).index_add(0, pairs, torch.cat(results))
