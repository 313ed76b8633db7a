"""Costs that are counted, not timed: parameters stored and used, floating-point operations per example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness.cost import flops
from harness.evaluate.halving import with_fewer
from harness.moe.experts import Experts
from harness.moe.layer import MixtureOfExperts
from harness.systems.parts import MemberPart
from harness.systems.staged import Staged
from harness.types import Combination, Part

STACKED = ("gate_up_proj", "down_proj")
"""The names under which transformers stacks the weights of all experts of a layer."""


def parameters_stored(combination: Combination) -> int:
    """Parameters of all different models that the combination holds; a model that is run twice is stored once."""
    modules = {_model_of(part): part.module for part in combination.parts()}
    return sum(parameter.numel() for module in modules.values() for parameter in module.parameters())


def parameters_active(combination: Combination, calls: Tensor | None = None) -> float:
    """Parameters that one example meets, over all model calls; of sparse experts only those that run.

    The mean over examples with calls [N, parts] (``Combination.run``); without these every part is called once.
    """
    active = [_active(part) for part in combination.parts()]
    return sum(active) if calls is None else _mean(calls, active)


def _model_of(part: Part) -> str:
    return part.member.digest if isinstance(part, MemberPart) else part.digest


def _active(part: Part) -> int:
    everything = sum(parameter.numel() for parameter in part.module.parameters())
    return everything - sum(_idle(layer, part.module) for layer in part.module.modules())


def _idle(layer: nn.Module, model: nn.Module) -> int:
    """Parameters of a layer's own experts that an example does not meet; 0 for a layer without any."""
    if isinstance(layer, MixtureOfExperts):
        return sum(parameter.numel() for parameter in layer.parameters()) - layer.active_parameters
    if isinstance(layer, Experts):  # of the layer above
        return 0
    chosen = getattr(getattr(model, "config", None), "num_experts_per_tok", None)
    stacked = dict(layer.named_parameters(recurse=False))  # [experts, ...], as transformers keeps them
    if not chosen or not set(STACKED) <= set(stacked):
        return 0
    return sum(stacked[name].numel() // len(stacked[name]) * (len(stacked[name]) - chosen) for name in STACKED)


def flops_per_example(combination: Combination, batch: Tensor, calls: Tensor | None = None) -> float:
    """Floating-point operations per example (1 multiply-add = 2), as ``flops.count`` has them.

    Counted while the combination runs on this batch [B, ...], so every model call is in it. With calls [N, parts] of
    other examples it is their mean, each part counted while it alone runs on the batch, and what deciding takes.
    """
    if calls is None:
        return flops.count(lambda: combination.log_probs(batch)) / len(batch)
    return _mean(calls, flops_of_parts(combination, batch)) + combination.deciding


def flops_of_parts(combination: Combination, batch: Tensor) -> list[float]:
    """The same of each part alone."""
    return [flops.count(partial(part.run_once, batch)) / len(batch) for part in combination.parts()]


def _flops_on(combination: Combination, batch: Tensor, calls: Tensor | None, count: int) -> float:
    return flops_per_example(combination, batch[:count], calls)


def _mean(calls: Tensor, each: Sequence[float]) -> float:
    """Over examples with calls [N, parts], the mean sum of what each part takes."""
    return math.fsum((calls.double().mean(dim=0) * torch.tensor(each, dtype=torch.float64)).tolist())


def counted(combination: Combination, calls: Tensor, few: Tensor | None) -> dict[str, Any]:
    """Parameters, operations and calls of a combination over the examples that are scored, as JSON values.

    Args:
        combination: what was evaluated.
        calls: [N, parts] of these examples, as ``Combination.run`` says.
        few: inputs [B, ...] to count operations of; None where it cannot be run on the task's inputs.
    """
    varying = calls if combination.calls_vary else None
    mean = calls.double().mean(dim=0).tolist()
    figures: dict[str, Any] = {
        "params_stored": parameters_stored(combination),
        "params_active": parameters_active(combination, varying),
        "calls": [{"model": part.name, "mean": m} for part, m in zip(combination.parts(), mean, strict=True)],
    }
    if few is not None:
        fewer = partial(_flops_on, combination, few, varying)
        figures["flops_per_example"] = with_fewer(fewer, len(few))
    if isinstance(combination, Staged):
        figures["stages"] = combination.shares(calls)
    return figures
