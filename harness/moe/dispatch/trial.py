"""Whether a backend implements a product: by trying a tiny one, forward and backward, once for a device and a type."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache

import torch
from torch.utils._python_dispatch import _disable_current_modes

from harness.moe.dispatch.dispatch import Run
from harness.moe.experts import PerceptronExperts
from harness.moe.routing import Routing

SIDE = 64
"""Size of the tiny experts: a multiple of every block and alignment."""


@cache
def fault(run: Run, device: torch.device, dtype: torch.dtype) -> str | None:
    """What goes wrong where two tiny experts run on this path, as the library says it; None if nothing does."""
    with ExitStack() as alone:
        for state in (_disable_current_modes(), torch.random.fork_rng(devices=[]), torch.inference_mode(False)):
            alone.enter_context(state)
        alone.enter_context(torch.enable_grad())
        experts = PerceptronExperts(2, SIDE, SIDE, SIDE).to(device, dtype)
        x = torch.ones(SIDE, SIDE, device=device, dtype=dtype, requires_grad=True)
        chosen = torch.tensor([[0, 1], [1, 0]], device=device).repeat(SIDE // 2, 1)
        weights = torch.full((SIDE, 2), 0.5, device=device)
        routing = Routing(chosen, weights, torch.zeros(SIDE, 2, device=device), torch.zeros((), device=device))
        try:
            run(experts, x, routing).sum().backward()
        except (RuntimeError, NotImplementedError, ValueError) as error:
            return str(error).splitlines()[0]
    return None
