"""mergekit 0.1.5 as an oracle, and tensors that a merge might stumble over."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from mergekit.merge_methods.api import merge_state_dicts
from torch import Tensor

KINDS = ("random", "zero", "same", "opposite", "near", "sparse", "tiny", "huge")
SHAPES = ((1,), (5,), (3, 4), (2, 3), (4, 1))

cases = st.tuples(st.integers(0, 2**32 - 1), st.sampled_from(SHAPES), st.lists(st.sampled_from(KINDS), min_size=2))
"""A seed, a shape, and how each tensor relates to the first one drawn."""


def tensors(case: tuple[int, tuple[int, ...], list[str]], count: int) -> list[Tensor]:
    """Tensors in float64, whose kinds are repeated where there are fewer of them than tensors."""
    seed, shape, kinds = case
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    pattern = draw()
    made = {
        "random": draw,
        "zero": lambda: torch.zeros(shape, dtype=torch.float64),
        "same": lambda: pattern.clone(),
        "opposite": lambda: -2 * pattern,
        "near": lambda: pattern + 1e-3 * draw(),
        "sparse": lambda: draw() * (torch.rand(shape, generator=generator) < 0.3),
        "tiny": lambda: 1e-5 * draw(),
        "huge": lambda: 1e6 * draw(),
    }
    return [made[kinds[i % len(kinds)]]() for i in range(count)]


def merged(models: list[dict[str, Tensor]], method: str, **parameters: Any) -> dict[str, Tensor]:
    """What mergekit makes of state dicts, the first being the base."""
    return merge_state_dicts(models, method, parameters=parameters, base=0)
