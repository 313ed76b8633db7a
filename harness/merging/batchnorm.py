"""Recomputing BatchNorm statistics: those of merged weights are nobody's, so they are measured anew.

Statistics that all models share are another thing: constants under which each of them was trained (a frozen body under
heads of its own, say). They are the merge's too; measured anew they would change what the weights were fitted to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.merging.arithmetic import Weights
from harness.models import forward
from harness.types import NotApplicable

MEAN, VARIANCE = "running_mean", "running_var"


def shared_statistics(models: Sequence[Weights]) -> dict[str, Tensor]:
    """The running means and variances that are the same in all models, by tensor name; layers with one that differs
    are left out whole."""
    first, *others = models
    shared: dict[str, Tensor] = {}
    for layer, _, last in (name.rpartition(".") for name in first):
        if last == MEAN:
            held = {name: first[name] for name in (_named(layer, MEAN), _named(layer, VARIANCE))}
            if all(torch.equal(other[name], tensor) for name, tensor in held.items() for other in others):
                shared |= held
    return shared


def _named(layer: str, statistic: str) -> str:
    return f"{layer}.{statistic}" if layer else statistic


def recalibrate(module: nn.Module, batches: Iterable[Tensor], keep: Collection[str] = ()) -> None:
    """Set the running statistics of the BatchNorm layers to those of these inputs; nothing to do without one.

    Statistics are reset and averaged over the batches, each weighted by its size, while only the BatchNorm layers are
    in training mode (dropout stays off); every training flag and momentum is restored. (Izmailov et al. 2018, SWA.)

    Args:
        module: the network; it is changed.
        batches: its inputs.
        keep: tensor names as of ``shared_statistics``; the layers that have them stay as they are.

    Raises:
        NotApplicable: where there are no inputs.
    """
    layers = [
        part
        for name, part in module.named_modules()
        if isinstance(part, _BatchNorm) and part.track_running_stats and _named(name, MEAN) not in keep
    ]
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
