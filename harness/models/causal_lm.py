"""Causal language models: a tiny Llama to train here, and any model that transformers builds from its configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.errors import BadInput
from harness.types import Architecture

NAME = "causal_lm"
"""The architecture of a model from a folder; its one option is the configuration, as JSON."""


def tiny_llama(*, vocab: int, hidden: int = 128, layers: int = 4, heads: int = 4, context: int = 512) -> nn.Module:
    """A Llama with tied embeddings: about 1 M parameters with the defaults and a vocabulary of 2,048."""
    from transformers import LlamaConfig, LlamaForCausalLM  # two seconds, and only language models need it

    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=-(-hidden * 8 // 96) * 32,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


def from_configuration(*, config: str) -> nn.Module:
    """The model of a configuration, its weights not initialised: they are loaded next."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    settings: dict[str, Any] = json.loads(config)
    with no_init_weights():
        module: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings), dtype=torch.float32)
        module.tie_weights()  # which building without initialisation leaves out
    built: nn.Module = module
    return built


@contextmanager
def attention_for_training(module: nn.Module) -> Iterator[None]:
    """Plain attention while a language model is trained on a CPU, whose fused one has a slow backward in bfloat16.

    (A tiny Llama on windows of 128 tokens trains 1.5 times as fast.) Other networks and devices are left alone.
    """
    used = getattr(getattr(module, "config", None), "_attn_implementation", None)
    if used is None or next(module.parameters()).device.type != "cpu":
        yield
        return
    module.set_attn_implementation("eager")  # type: ignore[operator]
    try:
        yield
    finally:
        module.set_attn_implementation(used)  # type: ignore[operator]


def architecture_of(settings: dict[str, Any]) -> Architecture:
    """The architecture of a configuration; what does not change the computation is left out."""
    passing = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "architectures", "use_cache")
    kept = {key: value for key, value in settings.items() if key not in passing}
    return Architecture(NAME, (("config", json.dumps(kept, sort_keys=True)),))


def configuration(architecture: Architecture) -> dict[str, Any]:
    """The configuration that ``architecture_of`` wrote down."""
    settings: dict[str, Any] = json.loads(dict(architecture.options)["config"])
    return settings


@lru_cache
def vocabulary_of(architecture: Architecture) -> int | None:
    """The tokens that a language model of this architecture has logits for; None for other networks."""
    options = dict(architecture.options)
    if architecture.name != NAME:
        return options.get("vocab")
    from transformers import AutoConfig

    return int(AutoConfig.for_model(**configuration(architecture)).get_text_config().vocab_size)


def generation_settings(folder: Path) -> Any:
    """How a folder's model generates by its own account, as transformers reads it when it loads the model.

    Raises:
        BadInput: a ``generation_config.json`` that is no such thing.
    """
    from transformers import GenerationConfig
    from transformers.utils import CONFIG_NAME, GENERATION_CONFIG_NAME

    own = (folder / GENERATION_CONFIG_NAME).is_file()
    try:
        return GenerationConfig.from_pretrained(
            str(folder),
            config_file_name=None if own else CONFIG_NAME,
            _from_model_config=not own,
            local_files_only=True,
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"{GENERATION_CONFIG_NAME} cannot be read: {reason}", place=str(folder)) from None
