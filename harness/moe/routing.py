"""What a gate decides: the experts of each row, their weights, and what a capacity leaves of that."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Routing:
    """The k experts of each of N rows; a pair is a row with one of its experts."""

    chosen: Tensor
    """[N, k] int64: the experts of each row, the best first."""
    weights: Tensor
    """[N, k]: what each result is multiplied by, in the gate's precision; differentiable."""
    logits: Tensor
    """[N, E]: the scores of all experts, without noise."""
    loss: Tensor
    """The gate's weighted losses, a scalar: balance and z-loss in training, 0 in eval mode."""
    kept: Tensor | None = None
    """[N, k] bool: the pairs that a capacity leaves; None: all of them."""

    @property
    def experts(self) -> int:
        """How many there are."""
        return self.logits.shape[-1]

    @property
    def dropped(self) -> Tensor:
        """How many pairs a capacity dropped (of Switch, with k = 1: rows); an int64 scalar."""
        return self.chosen.new_zeros(()) if self.kept is None else (~self.kept).sum()

    def gates(self) -> Tensor:
        """[N, E]: the weight of every expert for every row, 0 where it does not run."""
        weights = self.weights if self.kept is None else self.weights * self.kept
        return weights.new_zeros(self.logits.shape).scatter_add(1, self.chosen, weights)

    def load(self) -> Tensor:
        """[E] int64: the rows that each expert runs on."""
        pairs = self.chosen if self.kept is None else self.chosen[self.kept]
        return torch.bincount(pairs.flatten(), minlength=self.experts)

    def within(self, capacity: float) -> Routing:
        """The same with at most ``ceil(capacity * N k / E)`` rows for each expert.

        Best choices come before second choices, earlier rows before later ones (GShard, arXiv:2006.16668). A dropped
        pair adds nothing to its row's output: the rest of the weights stays as it is, and a row that loses all its
        experts gets zeros, so a residual connection around the layer carries it.
        """
        rows, k = self.chosen.shape
        limit = math.ceil(capacity * rows * k / self.experts)
        by_choice = self.chosen.t().reshape(-1)  # [k N]: all best choices first
        one_hot = torch.nn.functional.one_hot(by_choice, self.experts)
        position = (one_hot.cumsum(dim=0) * one_hot).sum(dim=-1)  # from 1, within the pair's expert
        return replace(self, kept=(position <= limit).view(k, rows).t())
