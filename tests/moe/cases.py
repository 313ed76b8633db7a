"""Experts, rows and routings of every sort for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.moe import Experts, ModuleExperts, PerceptronExperts, Routing, SwiGLUExperts


class Twice(nn.Module):
    """Neither of the stacked sorts: a product of two linear layers."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)

    def forward(self, rows: Tensor) -> Tensor:
        return torch.tanh(self.one(rows)) * self.other(rows)


EXPERTS: dict[str, Callable[..., Experts]] = {
    "perceptrons": lambda e, i, h, o: PerceptronExperts(e, i, h, o),
    "perceptrons without biases": lambda e, i, h, o: PerceptronExperts(e, i, h, o, bias=False),
    "one layer": lambda e, i, h, o: PerceptronExperts(e, i, o),
    "SwiGLU": lambda e, i, h, o: SwiGLUExperts(e, i, h, o),
    "SwiGLU with biases": lambda e, i, h, o: SwiGLUExperts(e, i, h, o, bias=True),
    "modules": lambda e, i, h, o: ModuleExperts([Twice(i, o) for _ in range(e)], i, o),
}


def routing(chosen: Tensor, experts: int, dtype: torch.dtype, *, seed: int = 0) -> Routing:
    """These experts [N, k] with random positive weights, as a gate would hand them over."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(chosen.shape, generator=generator, dtype=torch.float64)
    precision = torch.promote_types(dtype, torch.float32)
    logits = torch.zeros(len(chosen), experts, dtype=precision)
    return Routing(chosen, weights.to(precision), logits, torch.zeros(()))


def choices(rows: int, experts: int, k: int, *, seed: int = 0) -> Tensor:
    """k different experts for each row [rows, k]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, experts, generator=generator).argsort(dim=-1)[:, :k]


@st.composite
def routings(draw: st.DrawFn, dtype: torch.dtype = torch.float32) -> Routing:
    """Any rows (0 and 1 too), experts and k; all rows alike, or with some experts that no row chooses."""
    experts = draw(st.integers(1, 6))
    used = draw(st.integers(1, experts))
    k = draw(st.integers(1, used))
    rows = draw(st.sampled_from([0, 1, 2, 5, 17, 40]))
    chosen = choices(rows, used, k, seed=draw(st.integers(0, 99)))
    if draw(st.booleans()) and rows:
        chosen = chosen[:1].expand(rows, k)
    chosen = chosen + (experts - used) * draw(st.booleans())  # the idle ones first or last
    made = routing(chosen.contiguous(), experts, dtype, seed=draw(st.integers(0, 99)))
    capacity = draw(st.sampled_from([None, None, 0.3, 1.0]))
    return made if capacity is None else made.within(capacity)
