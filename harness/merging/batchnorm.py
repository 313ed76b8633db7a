"""Recomputing BatchNorm statistics: those of merged weights are nobody's, so they are measured anew."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.models import forward
from harness.types import NotApplicable


def recalibrate(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running statistics of every BatchNorm layer to those of these inputs; nothing to do without one.

    Statistics are reset and averaged over the batches, each weighted by its size, while only the BatchNorm layers are
    in training mode (dropout stays off); every training flag and momentum is restored. (Izmailov et al. 2018, SWA.)

    Raises:
        NotApplicable: where there are no inputs.
    """
    layers = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not layers:
        return
    flags = {m: m.training for m in module.modules()}
    momenta = [layer.momentum for layer in layers]
    try:
        module.eval()
        for layer in layers:
            layer.reset_running_stats()
            layer.train()
        seen = 0
        with torch.no_grad():
            for batch in filter(len, batches):
                seen += len(batch)
                for layer in layers:
                    layer.momentum = len(batch) / seen  # a cumulative mean in which a smaller last batch counts less
                forward.logits(module, batch)
        if not seen:
            raise NotApplicable("its BatchNorm statistics are measured anew on training inputs, and there are none")
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for part, flag in flags.items():
            part.training = flag
