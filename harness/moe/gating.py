"""Gates: which experts run for a row, and with what weight. All compute in float32 at least, whatever the inputs are.

A gate starts from scores ``x W_g^T`` [N, E]; ``W_g`` [E, inputs] lies as in ``nn.Linear`` and in transformers' routers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.moe.losses import auxiliary_loss, expected_load, importance_loss, squared_variation, z_loss
from harness.moe.routing import Routing


class Gate(nn.Module, ABC):
    """Rows [N, inputs] to their ``Routing``.

    Args:
        inputs: size of a row.
        experts, k: how many there are, and how many run for each row.
        balance_weight: factor of the gate's own balance loss.
        z_weight: factor of the router z-loss.
    """

    def __init__(self, inputs: int, experts: int, k: int, *, balance_weight: float, z_weight: float) -> None:
        super().__init__()
        if not 1 <= k <= experts:
            raise ValueError(f"k must be between 1 and the number of experts ({experts}), not {k}")
        self.inputs, self.experts, self.k = inputs, experts, k
        self.balance_weight, self.z_weight = balance_weight, z_weight
        self.weight = nn.Parameter(torch.zeros(experts, inputs))

    @property
    def active_parameters(self) -> int:
        """Parameters that a row meets outside training."""
        return self.weight.numel()

    def forward(self, x: Tensor) -> Routing:
        with torch.autocast(x.device.type, enabled=False):
            return self.route(x.to(torch.promote_types(x.dtype, torch.float32)))

    @abstractmethod
    def route(self, x: Tensor) -> Routing:
        """The same for rows in float32 or float64."""

    def scores(self, x: Tensor, weight: Tensor) -> Tensor:
        """``x W^T`` [N, E] in the precision of x."""
        return functional.linear(x, weight.to(x.dtype))

    def top(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The k largest of each row of [N, E] and their positions.

        A stable sort, not topk: equal scores (all of them at the start) go to the lowest index on every machine.
        """
        chosen = scores.sort(dim=-1, descending=True, stable=True).indices[:, : self.k]
        return scores.gather(1, chosen), chosen

    def losses(self, logits: Tensor, balance: Tensor) -> Tensor:
        """Weighted sum of a balance loss and the z-loss."""
        loss = self.balance_weight * balance
        return loss + self.z_weight * z_loss(logits) if self.z_weight else loss


class NoisyTopK(Gate):
    """``softmax(KeepTopK(x W_g + eps softplus(x W_n), k))`` (Shazeer et al. 2017, arXiv:1701.06538).

    The balance losses are those of importance and of load. Both weights start at 0: every expert starts with an equal
    load. Noise and losses are of training mode only; in eval mode nothing is drawn.
    """

    def __init__(
        self, inputs: int, experts: int, k: int = 2, *, balance_weight: float = 0.1, z_weight: float = 0.0
    ) -> None:
        super().__init__(inputs, experts, k, balance_weight=balance_weight, z_weight=z_weight)
        self.noise = nn.Parameter(torch.zeros(experts, inputs))

    def route(self, x: Tensor) -> Routing:
        clean = self.scores(x, self.weight)
        if not self.training:
            best, chosen = self.top(clean)
            return Routing(chosen, torch.softmax(best, dim=-1), clean, clean.new_zeros(()))
        spread = functional.softplus(self.scores(x, self.noise))
        noisy = clean + torch.randn_like(clean) * spread
        best, chosen = self.top(noisy)
        routing = Routing(chosen, torch.softmax(best, dim=-1), clean, clean.new_zeros(()))
        load = expected_load(clean, noisy, spread, self.k)
        balance = importance_loss(routing.gates()) + squared_variation(load)
        return Routing(chosen, routing.weights, clean, self.losses(clean, balance))


class SoftmaxTopK(Gate):
    """A softmax over all experts, of which the k largest are kept: Mixtral, Qwen-MoE, OLMoE.

    Args:
        normalise: whether the k weights are divided by their sum (transformers' ``norm_topk_prob``; Mixtral always).
        balance_weight: factor of ``losses.auxiliary_loss`` (transformers' ``router_aux_loss_coef``).
    """

    def __init__(
        self,
        inputs: int,
        experts: int,
        k: int = 2,
        *,
        normalise: bool = True,
        balance_weight: float = 0.0,
        z_weight: float = 0.0,
    ) -> None:
        super().__init__(inputs, experts, k, balance_weight=balance_weight, z_weight=z_weight)
        self.normalise = normalise
        nn.init.normal_(self.weight, std=0.02)  # transformers' initializer_range

    def route(self, x: Tensor) -> Routing:
        logits = self.scores(x, self.weight)
        best, chosen = self.top(logits)
        # the shares of the k alone are what is left of the softmax over all when it is divided by their sum
        weights = torch.softmax(best, dim=-1) if self.normalise else (best - logits.logsumexp(-1, keepdim=True)).exp()
        loss = logits.new_zeros(())
        if self.training and (self.balance_weight or self.z_weight):
            loss = self.losses(logits, auxiliary_loss(torch.softmax(logits, dim=-1), chosen))
        return Routing(chosen, weights, logits, loss)


class Switch(SoftmaxTopK):
    """One expert a row, weighted with its probability: ``y = p_i E_i(x)`` (Fedus et al. 2021, arXiv:2101.03961)."""

    def __init__(self, inputs: int, experts: int, *, balance_weight: float = 0.01, z_weight: float = 0.0) -> None:
        super().__init__(inputs, experts, 1, normalise=False, balance_weight=balance_weight, z_weight=z_weight)
        std = math.sqrt(0.1 / inputs)  # the paper's smaller start, section 2.4
        nn.init.trunc_normal_(self.weight, std=std, a=-2 * std, b=2 * std)
