"""Causal language models: a tiny Llama to train here, and any model that transformers builds from its configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
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

PASSING = {"transformers_version", "_name_or_path", "dtype", "architectures", "auto_map"}
"""What a configuration says of its folder, not of the network."""
INERT = re.compile(
    "initializer.*|use_cache|.*dropout.*|.*pdrop|.*_drop|.*layerdrop|.*jitter_noise|.*aux_loss.*|return_dict|id2label|"
    "output_(attentions|hidden_states|scores|logits|router_logits)|label2id|problem_type|task_specific_params|"
    "tokenizer_class|prefix|finetuning_task|pretraining_tp|unsloth_.*|.*(?<!forced)_token_id|begin_suppress_tokens|"
    "suppress_tokens|(max|min)_length|do_sample|top_[kp]|num_beams"
)
"""Settings of a configuration that say how a model is trained, called or ended, not what it computes."""


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
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with no_init_weights():
        module: Any = AutoModelForCausalLM.from_config(config_of(json.loads(config)), dtype=torch.float32)
        module.tie_weights()  # which building without initialisation leaves out
    built: nn.Module = module
    return built


def config_of(settings: Mapping[str, Any]) -> Any:
    """The configuration of transformers that ``architecture_of`` wrote down."""
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[settings["model_type"]]
    return kind.from_dict(kind._decode_special_floats(dict(settings)))


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


def architecture_of(config: Any) -> Architecture:
    """The architecture of a configuration of transformers, without what says nothing of the network."""
    settings = json.loads(config.to_json_string(use_diff=True))
    kept = {key: settings[key] for key in settings.keys() - PASSING}
    return Architecture(NAME, (("config", json.dumps(kept, sort_keys=True)),))


def configuration(architecture: Architecture) -> dict[str, Any]:
    """The configuration that ``architecture_of`` wrote down."""
    settings: dict[str, Any] = json.loads(dict(architecture.options)["config"])
    return settings


def differences(one: Architecture, other: Architecture) -> dict[str, tuple[Any, Any]]:
    """The settings in which two configurations differ once transformers has filled in what they leave out."""
    ones, twos = (_by_path(_whole(architecture)) for architecture in (one, other))
    keys = sorted(ones.keys() | twos.keys())
    return {key: (ones.get(key), twos.get(key)) for key in keys if ones.get(key) != twos.get(key)}


def _whole(architecture: Architecture) -> dict[str, Any]:
    settings = json.loads(config_of(configuration(architecture)).to_json_string(use_diff=False))
    return {key: settings[key] for key in settings.keys() - PASSING}


def _by_path(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Settings by their names, those of a part of the model as "text_config.hidden_size"."""
    by_path: dict[str, Any] = {}
    for key, value in settings.items():
        path = f"{above}{key}"
        by_path |= _by_path(value, f"{path}.") if key.endswith("_config") and isinstance(value, dict) else {path: value}
    return by_path


def is_inert(path: str, architecture: Architecture) -> bool:
    """Whether a setting, by its path, changes nothing of what a model of this architecture computes, shapes apart."""
    key = path.rpartition(".")[2]
    if key in PASSING:
        return True
    kind = configuration(architecture)["model_type"]
    if key == "pad_token_id" and re.search("roberta|camembert|data2vec|xmod|xglm", kind):  # positions count from it
        return False
    if key == "max_position_embeddings":  # tables of positions differ in shape; some rotary embeddings stretch by it
        rope = {name: value for name, value in _by_path(_whole(architecture)).items() if "rope" in name}
        return not re.search("dynamic|longrope|yarn", json.dumps(rope))
    return bool(INERT.fullmatch(key))


@lru_cache
def vocabulary_of(architecture: Architecture) -> int | None:
    """The tokens that a language model of this architecture has logits for; None for other networks."""
    options = dict(architecture.options)
    if architecture.name != NAME:
        return options.get("vocab")
    return int(config_of(configuration(architecture)).get_text_config().vocab_size)


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
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"{GENERATION_CONFIG_NAME} cannot be read: {reason}", place=str(folder)) from None
