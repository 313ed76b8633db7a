"""Costs that are counted, not timed: parameters stored and used, floating-point operations per example."""

from __future__ import annotations

from torch import Tensor

from harness.combinations import MemberPart
from harness.cost import flops
from harness.moe.layer import MixtureOfExperts
from harness.types import Combination, Part


def parameters_stored(combination: Combination) -> int:
    """Parameters of all different models that the combination holds; a model that is run twice is stored once."""
    modules = {_model_of(part): part.module for part in combination.parts()}
    return sum(parameter.numel() for module in modules.values() for parameter in module.parameters())


def parameters_active(combination: Combination) -> int:
    """Parameters that one example meets, over all model calls; of sparse experts only those that run."""
    return sum(_active(part) for part in combination.parts())


def _model_of(part: Part) -> str:
    return part.member.digest if isinstance(part, MemberPart) else part.digest


def _active(part: Part) -> int:
    layers = [layer for layer in part.module.modules() if isinstance(layer, MixtureOfExperts)]
    inside = sum(parameter.numel() for layer in layers for parameter in layer.parameters())
    everything = sum(parameter.numel() for parameter in part.module.parameters())
    return everything - inside + sum(layer.active_parameters for layer in layers)


def flops_per_example(combination: Combination, batch: Tensor) -> float:
    """Floating-point operations per example (1 multiply-add = 2), as ``flops.count`` has them.

    Counted while the combination runs on this batch [B, ...], so every model call is in it.
    """
    return flops.count(lambda: combination.log_probs(batch)) / len(batch)
