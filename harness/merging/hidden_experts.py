"""Classifiers written with experts: their hidden layer becomes experts of ``harness.moe``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.merging.arithmetic import Weights
from harness.merging.experts import Form, stack
from harness.models.architectures import with_options
from harness.types import Architecture, NotApplicable


@dataclass(frozen=True)
class HiddenLayerForm(Form):
    """A classifier with the option ``experts``, whose hidden linear layer has a ReLU behind it.

    Its experts are that layer with a ReLU of their own: the ReLU of what is not negative changes nothing.
    """

    @property
    def places(self) -> list[str]:
        return ["hidden"]

    def sparse(self, experts: int, k: int, balance: float) -> Architecture:
        if dict(self.dense.options).get("experts"):
            raise NotApplicable(f"a {self.dense.name} with experts has no dense hidden layer to make experts of")
        return with_options(self.dense, experts=experts, active=k, routing="sparse", balance=balance)

    def experts(self, place: str, models: Sequence[Weights]) -> dict[str, Tensor]:
        """``up_proj`` [experts, hidden, inputs] and ``up_proj_bias`` [experts, hidden]."""
        names = {"up_proj": "weight", "up_proj_bias": "bias"}
        return {f"{place}.experts.{name}": stack(models, f"{place}.{dense}") for name, dense in names.items()}

    def inputs(self, place: str, model: Weights) -> int:
        return model[f"{place}.weight"].shape[1]

    def router(self, place: str, weight: Tensor) -> dict[str, Tensor]:
        """The noise of the gate in training starts as that of a fresh one."""
        return {**super().router(place, weight), f"{place}.gate.noise": torch.zeros_like(weight)}
