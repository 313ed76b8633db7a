"""The config.json of a merge: the donor's, with what the merge changed and without what would be code."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import BadInput
from harness.models.settings import kernels

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""What kinds of models call their number of layers."""
VOCABULARY = ("vocab_size", "n_words", "n_vocab")
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""torch's names of safetensors' types."""
DROPPED = ("auto_map", "_name_or_path")
"""Where code lies, and where the donor was read from: neither is of the new folder."""
_SAYS_OF_LAYERS = re.compile(r"layer|blocks?_type|attention_types|attn_types|hybrid.*pattern|per_block")


def changed_config(
    config: Mapping[str, Any],
    *,
    layers: int | Sequence[int] | None = None,
    tied: bool | None = None,
    dtype: str,
    vocabulary: int | None = None,
    token_ids: Mapping[int, int | None] | None = None,
    place: str,
) -> dict[str, Any]:
    """A configuration like the donor's but for what is given; all else stays as its file has it.

    Args:
        config: the donor's, as its file has it.
        layers: for each layer of the merge, the layer of the donor that its settings are from, or just how many layers
            there are, which serves where all layers of the donor have the same settings; None: as many as the donor.
        tied: whether the output layer is the input embedding; None: as the donor says.
        dtype: of the weights, by torch's name or by safetensors'.
        vocabulary: rows of the embedding; None: as many as the donor has.
        token_ids: for tokens of the donor, by their ids, their ids in the new vocabulary; None for one that is gone.
        place: the donor's folder, for errors.

    Raises:
        BadInput: quantised weights, settings that name code of the hub, settings of single layers that cannot be
            carried over to other layers.
    """
    if kernel := next(kernels(dict(config)), None):
        raise BadInput(f"config.json names a kernel of the hub, which is code: '{kernel}'", place=place)
    if config.get("quantization_config"):
        hint = "save it with plain weights (dequantize) first"
        raise BadInput("quantised weights cannot be combined", place=place, hint=hint)
    changed = json.loads(json.dumps({key: value for key, value in config.items() if key not in DROPPED}))
    _set_dtype(changed, DTYPES.get(dtype, dtype))
    text = _text_part(changed)
    if layers is not None:
        _set_layers(changed, text, layers, place)
    if vocabulary is not None:
        text[next((key for key in VOCABULARY if key in text), VOCABULARY[0])] = vocabulary
    if tied is not None:
        changed["tie_word_embeddings"] = tied
        if "tie_word_embeddings" in text:
            text["tie_word_embeddings"] = tied
    if token_ids is not None:
        for part in [changed] if text is changed else [changed, text]:
            renumber(part, token_ids)
    return changed


def vocabulary_size(config: Mapping[str, Any]) -> int | None:
    """The number of tokens that a configuration says its model has."""
    text = _text_part(dict(config))
    return next((text[key] for key in VOCABULARY if isinstance(text.get(key), int)), None)


def renumber(settings: dict[str, Any], ids: Mapping[int, int | None]) -> None:
    """Change the ids of tokens in a model's settings in place, such as ``eos_token_id``, to those they have now."""
    for key, value in settings.items():
        if not key.endswith("_token_id"):
            continue
        if isinstance(value, list):
            settings[key] = [new for each in value if (new := ids.get(each)) is not None] or None
        elif isinstance(value, int) and not isinstance(value, bool):
            settings[key] = ids.get(value)


def config_text(config: Mapping[str, Any]) -> str:
    """A configuration as transformers writes it, but in the order that it had."""
    return json.dumps(config, indent=2) + "\n"


def _text_part(config: dict[str, Any]) -> dict[str, Any]:
    """Where the settings of the language model are: in a part of its own where the model has others beside it."""
    part = config.get("text_config")
    return part if isinstance(part, dict) and not any(key in config for key in LAYERS) else config


def _set_dtype(config: dict[str, Any], dtype: str) -> None:
    """The type under the key that the file has, and in its parts where they name one."""
    for key, value in config.items():
        if key.endswith("_config") and isinstance(value, dict) and (value.get("dtype") or value.get("torch_dtype")):
            _set_dtype(value, dtype)
    config |= dict.fromkeys(config.keys() & {"dtype", "torch_dtype"} or ("dtype",), dtype)


def _set_layers(config: dict[str, Any], text: dict[str, Any], layers: int | Sequence[int], place: str) -> None:
    """The number of layers, and what is said of single ones, for other layers than the donor's."""
    named = [key for key in LAYERS if isinstance(text.get(key), int)]
    before = text[named[0]] if named else None
    chosen = list(range(layers)) if isinstance(layers, int) else list(layers)
    if before is not None and chosen == list(range(before)):
        return
    if config.get("is_encoder_decoder"):
        problem = "a model with an encoder and a decoder has two kinds of layers, which no slices name"
        raise BadInput(problem, place=place)
    kinds = _kinds_of_layers(config)
    for key in named or LAYERS[:1]:
        text[key] = len(chosen)
    own = None if isinstance(layers, int) else chosen
    for key, value in list(text.items()):
        if _SAYS_OF_LAYERS.search(key) and isinstance(value, list | dict | str) and value:
            text[key] = _taken(key, value, before, own, len(chosen), place)
    if kinds is not None:
        expected = _taken("layer_types", kinds, len(kinds), own, len(chosen), place)
        if _kinds_of_layers(config) != expected:
            text["layer_types"] = expected
        if _kinds_of_layers(config) != expected:
            problem = "its layers differ in kind by their number, which the configuration of other layers cannot say"
            raise BadInput(problem, place=place)


def _taken(key: str, value: Any, before: int | None, chosen: Sequence[int] | None, count: int, place: str) -> list[Any]:
    """The entries of a list with one for each layer that belong to the layers of the merge."""
    per_layer = isinstance(value, list) and len(value) == before and not _are_numbers(value)
    if not per_layer:
        hint = "a merge of other layers would need another value, which only you know"
        raise BadInput(f"'{key}' of config.json names single layers of the donor", place=place, hint=hint)
    if chosen is not None:
        if outside := [layer for layer in chosen if not 0 <= layer < len(value)]:
            raise BadInput(f"'{key}' of config.json says nothing of layer {outside[0]}", place=place)
        return [value[layer] for layer in chosen]
    if any(each != value[0] for each in value):
        raise BadInput(f"'{key}' of config.json differs between layers, and which are taken is not known", place=place)
    return value[:1] * count


def _are_numbers(value: Sequence[Any]) -> bool:
    """Whether a list could be numbers of layers: no two alike."""
    return all(isinstance(each, int) for each in value) and len(set(value)) == len(value)


def _kinds_of_layers(config: Mapping[str, Any]) -> list[str] | None:
    """What kind each layer is of, as transformers reads a configuration; None where all are, or the kind is unknown."""
    from transformers import CONFIG_MAPPING

    if config.get("model_type") not in CONFIG_MAPPING:
        return None
    kind = CONFIG_MAPPING[config["model_type"]]
    try:
        kinds = getattr(kind.from_dict(dict(config)).get_text_config(), "layer_types", None)
    except Exception:  # the wrong number of kinds, which is what the caller asks
        return []
    return list(kinds) if kinds else None
