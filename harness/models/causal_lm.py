"""Causal language models: a tiny Llama to train here, and what is particular to all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from harness.errors import BadInput
from harness.models.checkpoint import error_line
from harness.models.configuration import config_of, settings_of
from harness.models.heads import CAUSAL
from harness.types import Architecture


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


@lru_cache
def vocabulary_of(architecture: Architecture) -> int | None:
    """The tokens that a language model of this architecture has logits for; None for other networks."""
    options = dict(architecture.options)
    if architecture.name != CAUSAL.name:
        return options.get("vocab")
    return int(config_of(settings_of(architecture)).get_text_config().vocab_size)


def read_generation_config(folder: Path) -> Any:
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
    except Exception as error:  # whatever the checks of its settings raise
        raise BadInput(f"{GENERATION_CONFIG_NAME} cannot be read: {error_line(error)}", place=str(folder)) from None
