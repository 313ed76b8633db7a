"""Costs that are counted, not timed: parameters stored and used, floating-point operations per example."""

from __future__ import annotations

from torch import Tensor, nn

from harness.cost import flops
from harness.moe.layer import MixtureOfExperts
from harness.systems.parts import MemberPart
from harness.types import Combination, Part

STACKED = ("gate_up_proj", "down_proj")
"""The names under which transformers stacks the weights of all experts of a layer."""


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
    everything = sum(parameter.numel() for parameter in part.module.parameters())
    return everything - sum(_idle(layer, part.module) for layer in part.module.modules())


def _idle(layer: nn.Module, model: nn.Module) -> int:
    """Parameters of a layer's own experts that an example does not meet; 0 for a layer without any."""
    if isinstance(layer, MixtureOfExperts):
        return sum(parameter.numel() for parameter in layer.parameters()) - layer.active_parameters
    chosen = getattr(getattr(model, "config", None), "num_experts_per_tok", None)
    stacked = dict(layer.named_parameters(recurse=False))  # [experts, ...], as transformers keeps them
    if not chosen or not set(STACKED) <= set(stacked):
        return 0
    return sum(stacked[name].numel() // len(stacked[name]) * (len(stacked[name]) - chosen) for name in STACKED)


def flops_per_example(combination: Combination, batch: Tensor) -> float:
    """Floating-point operations per example (1 multiply-add = 2), as ``flops.count`` has them.

    Counted while the combination runs on this batch [B, ...], so every model call is in it.
    """
    return flops.count(lambda: combination.log_probs(batch)) / len(batch)
