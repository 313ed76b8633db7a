"""Llama-type language models written as Mixtral or Qwen-MoE: the feed-forward layers become experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from harness.merging.arithmetic import Weights
from harness.merging.experts import Form, stack
from harness.models.architectures import build
from harness.models.configuration import architecture_of, config_of, head_of, is_inert, settings_of, without_values
from harness.types import Architecture, NotApplicable

Settings = dict[str, Any]


def _mixtral(dense: Settings, experts: int) -> Settings:
    return {"num_local_experts": experts, "sliding_window": dense.get("sliding_window")}


def _qwen(dense: Settings, experts: int) -> Settings:
    """All layers sparse, and the weights of the experts that run divided by their sum, as Mixtral always does."""
    width = dense["intermediate_size"]
    return {"num_experts": experts, "moe_intermediate_size": width, "decoder_sparse_step": 1, "norm_topk_prob": True}


def _qwen_with_shared(dense: Settings, experts: int) -> Settings:
    """Qwen2-MoE has one more expert that runs for every token: here it is as narrow as can be, and all zeros."""
    return {**_qwen(dense, experts), "shared_expert_intermediate_size": 1}


COUNTERPARTS: Mapping[str, tuple[str, Callable[[Settings, int], Settings]]] = {
    "llama": ("mixtral", _mixtral),
    "mistral": ("mixtral", _mixtral),
    "qwen2": ("qwen2_moe", _qwen_with_shared),
    "qwen3": ("qwen3_moe", _qwen),
}
"""By the kind of a dense model (``model_type``): the kind that has experts for it, and its settings of these."""
FORMAL = {"architectures", "model_type", "transformers_version", "dtype", "max_window_layers", "layer_types"}
"""Settings that change nothing of what is computed where attention is full in all layers."""

UNDECLARED = {"head_dim"}
"""Settings that Qwen3-MoE reads without declaring them; the shapes of tensors, which are compared, show them."""


@dataclass(frozen=True)
class DecoderForm(Form):
    """A language model whose layers have a feed-forward part with a gate (SwiGLU)."""

    active: ClassVar[str] = "top_k"

    @cached_property
    def _config(self) -> Any:
        """Of the dense model."""
        if head_of(self.dense):
            return config_of(settings_of(self.dense))
        with torch.device("meta"):
            return build(self.dense).config

    @property
    def kind(self) -> str:
        """What transformers calls the dense model's kind."""
        kind: str = self._config.model_type
        return kind

    @property
    def layers(self) -> list[str]:
        return [f"model.layers.{layer}" for layer in range(self._config.num_hidden_layers)]

    @property
    def places(self) -> list[str]:
        return [f"{layer}.mlp" for layer in self.layers]

    def sparse(self, experts: int, k: int, balance: float) -> Architecture:
        """As of every form; a balance loss is no part of such an architecture."""
        if self.kind not in COUNTERPARTS:
            raise NotApplicable(f"'{self.kind}' has no counterpart with experts here: {', '.join(COUNTERPARTS)} have")
        from transformers import CONFIG_MAPPING

        kind, of_experts = COUNTERPARTS[self.kind]
        settings = self._settings
        known = CONFIG_MAPPING[kind]().to_dict().keys() - FORMAL | UNDECLARED
        alike = {name: value for name, value in settings.items() if name in known}
        config = CONFIG_MAPPING[kind](**{**alike, **of_experts(settings, experts), "num_experts_per_tok": k})
        architecture = architecture_of(config)
        self._check(config, architecture)
        return architecture

    @property
    def _settings(self) -> Settings:
        """Those that the dense model's kind knows: what else a config.json may hold says nothing to it."""
        known = type(self._config)().to_dict().keys()
        return {name: value for name, value in self._config.to_dict().items() if name in known}

    def _check(self, config: Any, architecture: Architecture) -> None:
        """``NotApplicable`` where the kind with experts lacks a setting, or a tensor, of the dense model."""
        dense, sparse, kind = self._settings, config.to_dict(), config.model_type
        if set(dense.get("layer_types") or ["full_attention"]) != {"full_attention"}:
            raise NotApplicable(f"'{kind}' has the same attention in all layers, and this '{self.kind}' has not")
        for name, value in sorted(dense.items()):
            told = name in FORMAL or is_inert(name, architecture) or value in (None, False)
            if not told and sparse.get(name) != value:
                raise NotApplicable(f"'{kind}' has no '{name}: {value}', as this '{self.kind}' has")
        shapes = {name: tensor.shape for name, tensor in without_values(config).state_dict().items()}
        for name, tensor in without_values(self._config).state_dict().items():
            if self.is_shared(name) and shapes.get(name) != tensor.shape:
                raise NotApplicable(f"'{kind}' has no place for '{name}' of this '{self.kind}'")

    def experts(self, place: str, models: Sequence[Weights]) -> dict[str, Tensor]:
        """``gate_up_proj`` [experts, 2 width, hidden], the gate's rows first, and ``down_proj``."""
        gate_up = stack(models, f"{place}.gate_proj.weight", f"{place}.up_proj.weight")
        down = stack(models, f"{place}.down_proj.weight")
        return {f"{place}.experts.gate_up_proj": gate_up, f"{place}.experts.down_proj": down}

    def inputs(self, place: str, model: Weights) -> int:
        return model[f"{place}.up_proj.weight"].shape[1]

    def router(self, place: str, weight: Tensor) -> dict[str, Tensor]:
        tensors = super().router(place, weight)
        if COUNTERPARTS[self.kind][0] == "qwen2_moe":
            row = torch.zeros(1, weight.shape[1])
            shared = {f"shared_expert.{name}_proj": row for name in ("gate", "up")}
            shared |= {"shared_expert.down_proj": row.T, "shared_expert_gate": row}
            tensors |= {f"{place}.{name}.weight": tensor.clone() for name, tensor in shared.items()}
        return tensors
