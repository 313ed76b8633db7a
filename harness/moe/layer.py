"""The sparsely-gated mixture-of-experts layer with noisy top-k gating (Shazeer et al. 2017, arXiv:1701.06538)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class MixtureOfExperts(nn.Module):
    """``y = sum_i G_i(x) E_i(x)`` over the k experts that the gate picks for each row; no row is ever dropped.

    Args:
        inputs, hidden, outputs: sizes of each expert, a two-layer perceptron with a ReLU.
        experts: how many there are.
        k: how many run for each row.
        routing: "sparse" runs an expert only on its own rows; "dense" runs every expert on every row through the same
            gates: the same result, and the plain reference.
        balance_weight: factor of the importance loss and of the load loss.

    After a forward pass in training mode ``aux_loss`` holds the balance losses; in eval mode it is 0 and the gates
    are free of noise.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        *,
        experts: int = 4,
        k: int = 2,
        routing: str = "sparse",
        balance_weight: float = 0.1,
    ) -> None:
        super().__init__()
        if not 1 <= k <= experts:
            raise ValueError(f"k must be between 1 and the number of experts ({experts}), not {k}")
        if routing not in ("sparse", "dense"):
            raise ValueError(f"unknown routing '{routing}' (known: dense, sparse)")
        self.experts, self.k, self.routing, self.balance_weight = experts, k, routing, balance_weight
        self.up = nn.Parameter(torch.empty(experts, inputs, hidden))
        self.up_bias = nn.Parameter(torch.empty(experts, hidden))
        self.down = nn.Parameter(torch.empty(experts, hidden, outputs))
        self.down_bias = nn.Parameter(torch.empty(experts, outputs))
        self.gate = nn.Parameter(torch.zeros(inputs, experts))  # zero: every expert starts with equal load
        self.noise = nn.Parameter(torch.zeros(inputs, experts))
        for weight, bias in ((self.up, self.up_bias), (self.down, self.down_bias)):
            bound = 1 / math.sqrt(weight.shape[1])
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)
        self.aux_loss: Tensor = torch.zeros(())

    @property
    def active_parameters(self) -> int:
        """Parameters that one row uses: the gate and k experts (the noise is only for training)."""
        expert = sum(p[0].numel() for p in (self.up, self.up_bias, self.down, self.down_bias))
        return self.gate.numel() + (self.k if self.routing == "sparse" else self.experts) * expert

    def forward(self, x: Tensor) -> Tensor:
        gates, load = self.gates(x)
        if load is not None:
            self.aux_loss = self.balance_weight * (squared_variation(gates.sum(dim=0)) + squared_variation(load))
        else:
            self.aux_loss = torch.zeros((), device=x.device)
        return self._sparse(x, gates) if self.routing == "sparse" else self._dense(x, gates)

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gates [N, E] with exactly k non-zero in a row, and the smooth load [E] of ``load``; in eval mode None.

        Noise and load are for training only, and cost as much as the gate.
        """
        clean = x @ self.gate
        if not self.training:
            return self._top(clean), None
        spread = functional.softplus(x @ self.noise)
        noisy = clean + torch.randn_like(clean) * spread
        return self._top(noisy), self.load(clean, noisy, spread)

    def _top(self, scores: Tensor) -> Tensor:
        # a stable sort, not topk: equal scores (all of them at the start) go to the lowest index on every machine
        chosen = scores.sort(dim=-1, descending=True, stable=True).indices[:, : self.k]
        weights = torch.softmax(scores.gather(1, chosen), dim=-1)
        return torch.zeros_like(scores).scatter(1, chosen, weights)

    def load(self, clean: Tensor, noisy: Tensor, spread: Tensor) -> Tensor:
        """Expected rows per expert [E]: the chance of being in the top k if that expert's noise were drawn again.

        An expert is in if it beats the k-th largest score of the *others*. With k = E it always is.
        """
        if self.k == self.experts:
            return torch.full((self.experts,), float(len(clean)), device=clean.device, dtype=clean.dtype)
        top = noisy.topk(self.k + 1, dim=-1).values
        inside = noisy >= top[:, self.k - 1 : self.k]
        rival = torch.where(inside, top[:, self.k :], top[:, self.k - 1 : self.k])  # [N, E]
        spread = spread.clamp(min=1e-6)  # softplus underflows: the slope by it, 1/spread^2, would be infinite times 0
        return torch.special.ndtr((clean - rival) / spread).sum(dim=0)

    def _sparse(self, x: Tensor, gates: Tensor) -> Tensor:
        expert, row = gates.t().nonzero(as_tuple=True)  # sorted by expert
        counts = torch.bincount(expert, minlength=self.experts).tolist()
        weight = gates[row, expert].unsqueeze(-1)
        # unbind, not self.up[e]: the backward of an index writes a gradient as large as all experts each time
        layers = zip(self.up.unbind(), self.up_bias.unbind(), self.down.unbind(), self.down_bias.unbind(), strict=True)
        results = [
            functional.relu(rows @ up + up_bias) @ down + down_bias
            for rows, (up, up_bias, down, down_bias) in zip(x[row].split(counts), layers, strict=True)
            if len(rows)
        ]
        out = x.new_zeros(len(x), self.down.shape[-1])
        return out.index_add(0, row, weight * torch.cat(results)) if results else out

    def _dense(self, x: Tensor, gates: Tensor) -> Tensor:
        hidden = functional.relu(torch.einsum("nd,edh->enh", x, self.up) + self.up_bias.unsqueeze(1))
        each = torch.einsum("enh,eho->eno", hidden, self.down) + self.down_bias.unsqueeze(1)
        return torch.einsum("ne,eno->no", gates, each)


def squared_variation(values: Tensor) -> Tensor:
    """Squared coefficient of variation, ``Var(v) / mean(v)^2`` (population variance); 0 for a single value."""
    return values.var(unbiased=False) / (values.mean().square() + 1e-10)
