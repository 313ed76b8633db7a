"""Rows in the order of their experts, and back: what every path that sorts has in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from harness.moe.routing import Routing


@dataclass(frozen=True)
class Order:
    """The S = N k pairs of a row and an expert, sorted by expert; pairs that were dropped come last, without one."""

    row: Tensor
    """[S]: the row of each sorted pair."""
    pair: Tensor
    """[S]: the pair ``n k + j`` at each sorted position."""
    place: Tensor
    """[N, k]: where each pair lies among the sorted ones."""
    ends: Tensor
    """[E] int64: where the pairs of each expert end."""

    @property
    def counts(self) -> Tensor:
        """[E] int64: pairs of each expert."""
        return self.ends.diff(prepend=self.ends.new_zeros(1))


def by_expert(routing: Routing) -> Order:
    """Sort the pairs of a routing; the order of rows within an expert is kept, and no number leaves the device."""
    rows, k = routing.chosen.shape
    expert = routing.chosen if routing.kept is None else routing.chosen.where(routing.kept, routing.experts)
    expert, pair = expert.flatten().sort(stable=True)
    place = torch.empty_like(pair)
    place[pair] = torch.arange(len(pair), device=pair.device)
    ends = torch.searchsorted(expert, torch.arange(routing.experts, device=pair.device), right=True)
    return Order(pair // k, pair, place.view(rows, k), ends)


def gather(x: Tensor, order: Order) -> Tensor:
    """The row of each sorted pair [S, D], of rows [N, D].

    Its gradient sums the k places of each row: the backward of an index would add them one by one.
    """
    return _Gather.apply(x, order.row, order.place)


def combine(results: Tensor, weights: Tensor, order: Order) -> Tensor:
    """``sum_j weights[n, j] results[place[n, j]]`` [N, D], of results [S, D] and weights [N, k]."""
    return _Combine.apply(results, weights.to(results.dtype), order.row, order.pair, order.place)


def _sum_places(results: Tensor, place: Tensor, weights: Tensor | None) -> Tensor:
    """The (weighted) sum over the k places of each row; the products are not kept."""
    return torch.nn.functional.embedding_bag(place, results, mode="sum", per_sample_weights=weights)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, row: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(place)
        return x.index_select(0, row)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (place,) = ctx.saved_tensors
        return _sum_places(grad, place, None), None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, results: Tensor, weights: Tensor, row: Tensor, pair: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(results, weights, row, pair, place)
        return _sum_places(results, place, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        results, weights, row, pair, place = ctx.saved_tensors
        of_pair = grad.index_select(0, row)  # [S, D]
        by_weight = None
        if ctx.needs_input_grad[1]:
            by_weight = torch.linalg.vecdot(of_pair, results)[place]
        by_result = of_pair.mul_(weights.flatten()[pair].unsqueeze(-1)) if ctx.needs_input_grad[0] else None
        return by_result, by_weight, None, None, None
