"""Networks that transformers builds from their configuration, which their architecture has as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from harness.models.heads import CAUSAL, HEADS, IMAGE, MASKED, SEQUENCE, Head
from harness.types import Architecture, Reader

PASSING = {"transformers_version", "_name_or_path", "dtype", "architectures", "auto_map"}
"""What a configuration says of its folder, not of the network."""
INERT = re.compile(
    "initializer.*|use_cache|.*dropout.*|.*pdrop|.*_drop|.*layerdrop|.*jitter_noise|.*aux_loss.*|return_dict|id2label|"
    "output_(attentions|hidden_states|scores|logits|router_logits)|label2id|problem_type|task_specific_params|"
    "tokenizer_class|prefix|finetuning_task|pretraining_tp|unsloth_.*|.*(?<!forced)_token_id|begin_suppress_tokens|"
    "suppress_tokens|(max|min)_length|do_sample|top_[kp]|num_beams"
)
"""Settings of a configuration that say how a model is trained, called or ended, not what it computes."""


def causal_lm(*, config: str) -> nn.Module:
    """A causal language model."""
    return _built(CAUSAL, config)


def sequence_classifier(*, config: str, reader: Reader) -> nn.Module:
    """A classifier of texts; its tokenizer is what turns an example into its inputs (``forward.reader_of``)."""
    return _built(SEQUENCE, config)


def masked_lm(*, config: str, reader: Reader) -> nn.Module:
    """A masked language model, with its tokenizer."""
    return _built(MASKED, config)


def image_classifier(*, config: str, reader: Reader) -> nn.Module:
    """A classifier of images, with its image processor."""
    return _built(IMAGE, config)


def _built(head: Head, config: str) -> nn.Module:
    module: Any = head.reader.from_config(config_of(json.loads(config)), dtype=torch.float32)
    module.tie_weights()  # which building without initialisation leaves out
    built: nn.Module = module
    return built


@contextmanager
def to_be_filled(architecture: Architecture) -> Iterator[None]:
    """Leave the weights of a model of transformers as they are when it is built: they are loaded next."""
    if head_of(architecture) is None:
        yield
        return
    from transformers.initialization import no_init_weights

    with no_init_weights():
        yield


def without_values(config: Any, head: Head = CAUSAL) -> nn.Module:
    """The model of a configuration, on no device."""
    with torch.device("meta"):
        model: nn.Module = head.reader.from_config(deepcopy(config), dtype=torch.float32)
    return model


def head_of(architecture: Architecture) -> Head | None:
    """What a model that transformers builds from its configuration ends in; None for other networks."""
    return HEADS.get(architecture.name)


def reader_of(architecture: Architecture) -> Reader | None:
    """What turns raw examples into inputs of such a model, where it is of these."""
    return dict(architecture.options).get("reader")


def config_of(settings: Mapping[str, Any]) -> Any:
    """The configuration of transformers that ``architecture_of`` wrote down."""
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[settings["model_type"]]
    return kind.from_dict(kind._decode_special_floats(dict(settings)))


def architecture_of(config: Any, head: Head = CAUSAL, reader: Reader | None = None) -> Architecture:
    """The architecture of a configuration of transformers, without what says nothing of the network."""
    settings = json.loads(config.to_json_string(use_diff=True))
    kept = {key: settings[key] for key in settings.keys() - PASSING}
    if isinstance(head.kinds.get(config.model_type), tuple):  # several classes, of which this says which
        kept["architectures"] = settings.get("architectures")
    options: tuple[tuple[str, Any], ...] = (("config", json.dumps(kept, sort_keys=True)),)
    return Architecture(head.name, options if reader is None else (*options, ("reader", reader)))


def code_of_transformers(architecture: Architecture) -> tuple[str, ...]:
    """The module of transformers with the code of an architecture's network, which takes seconds to import."""
    if head_of(architecture) is None:
        return ()
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    name = model_type_to_module_name(settings_of(architecture)["model_type"])
    return (f"transformers.models.{name}.modeling_{name}",)


def like(architecture: Architecture, config: Any) -> Architecture:
    """The architecture of another configuration, with the same head and reader."""
    return architecture_of(config, HEADS[architecture.name], reader_of(architecture))


def settings_of(architecture: Architecture) -> dict[str, Any]:
    """The configuration that ``architecture_of`` wrote down."""
    settings: dict[str, Any] = json.loads(dict(architecture.options)["config"])
    return settings


def differences(one: Architecture, other: Architecture) -> dict[str, tuple[Any, Any]]:
    """The settings in which two configurations differ once transformers has filled in what they leave out."""
    ones, twos = (_by_path(_whole(architecture)) for architecture in (one, other))
    keys = sorted(ones.keys() | twos.keys())
    return {key: (ones.get(key), twos.get(key)) for key in keys if ones.get(key) != twos.get(key)}


def _whole(architecture: Architecture) -> dict[str, Any]:
    settings = json.loads(config_of(settings_of(architecture)).to_json_string(use_diff=False))
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
    kind = settings_of(architecture)["model_type"]
    if key == "pad_token_id" and re.search("roberta|camembert|data2vec|xmod|xglm", kind):  # positions count from it
        return False
    if key == "max_position_embeddings":  # tables of positions differ in shape; some rotary embeddings stretch by it
        rope = {name: value for name, value in _by_path(_whole(architecture)).items() if "rope" in name}
        return not re.search("dynamic|longrope|yarn", json.dumps(rope))
    return bool(INERT.fullmatch(key))
