"""Sort and split: rows sorted by expert, and one product for each expert that has any."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.moe.dispatch.dispatch import dispatch
from harness.moe.dispatch.order import by_expert, combine, gather
from harness.moe.experts import Experts
from harness.moe.routing import Routing


@dispatch("sorted", summary="rows sorted by expert, one product for each expert that has rows")
def sort_and_split(experts: Experts, x: Tensor, routing: Routing) -> Tensor:
    order = by_expert(routing)
    counts = order.counts.tolist()
    rows = gather(x, order)
    dropped = len(rows) - sum(counts)
    pieces = rows.split([*counts, dropped])[:-1]
    results = [expert(piece) for expert, piece in zip(experts.each(x.dtype), pieces, strict=True) if len(piece)]
    if dropped or not results:
        results.append(x.new_zeros(dropped, experts.outputs))
    return combine(torch.cat(results).to(x.dtype), routing.weights, order)
