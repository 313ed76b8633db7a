"""Sparse mixtures of experts: gates, experts, their losses, and the paths on which rows reach their experts."""

from harness.moe.experts import Experts, ModuleExperts, PerceptronExperts, StackedExperts, SwiGLUExperts
from harness.moe.gating import Gate, NoisyTopK, SoftmaxTopK, Switch
from harness.moe.layer import MixtureOfExperts
from harness.moe.routing import Routing

__all__ = [
    "Experts",
    "Gate",
    "MixtureOfExperts",
    "ModuleExperts",
    "NoisyTopK",
    "PerceptronExperts",
    "Routing",
    "SoftmaxTopK",
    "StackedExperts",
    "SwiGLUExperts",
    "Switch",
]
