"""A LoRA adapter on a folder of weights: for each tensor that it changes, what is added to it or stands for it.

Read without PEFT, whose rules these are for adapters that are nothing but products of two matrices; all others are
refused. Source: peft 0.21, ``peft/tuners/lora`` (Hu et al. 2021, arXiv:2106.09685; Kalajdzievski 2023,
arXiv:2312.03732, for the scale by the root of the rank).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.models.settings import read_object
from harness.recipes.layers import is_head, twin
from harness.streaming.plan import Adapted, Source, TensorAt

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What PEFT writes before the names of tensors that they have in the model."""
FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<kind>A\.weight|B\.weight|embedding_A|embedding_B)")
"""The name, without ``PREFIX``, of one of the two matrices of a module."""
MERGE_FIRST = "merge it into a folder first: peft's merge_and_unload, or `stockpot export` of a run with it as a member"

_READ = {"r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"}
"""Settings that say what is computed."""
_INERT = {
    "auto_mapping", "base_model_class", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying",
    "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "loftq_config", "lora_dropout", "lora_ga_config", "megatron_core", "modules_to_save",
    "parent_library", "peft_type", "peft_version", "qalora_group_size", "revision", "runtime_config",
    "target_modules", "task_type",
}  # fmt: skip
"""Settings that say how an adapter was trained, or what its file says as well; those that matter are checked apart."""
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""How training may have started without a change of the base's weights, which would have to be made again."""
_TRANSPOSED = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"}
"""Kinds of models with layers whose matrices are stored inputs by outputs (transformers' Conv1D)."""
_TRANSPOSED_LAYERS = {"c_attn", "c_proj", "c_fc", "q_attn"}


def plain_name(tensor: TensorAt) -> str:
    """The name that a tensor of an adapter has in the model; of a factor, below its module's."""
    return tensor.name.removeprefix(PREFIX).replace(".base_layer.", ".")


@dataclass(frozen=True)
class Adaptation:
    """A base's tensors with an adapter on them."""

    tensors: Mapping[str, Source]
    """By their names in the base's files, in its order; an output layer that was tied and is no longer comes last."""
    untied: bool
    """Whether input embedding and output layer are two from here on, whatever the base's config.json says."""


def weights_file(folder: Path) -> Path:
    """The file with an adapter's tensors; ``BadInput`` where the folder is no adapter, or has pickled ones."""
    if not (folder / SETTINGS).is_file():
        raise BadInput(f"{SETTINGS} is missing", place=str(folder), hint="after '+' comes the folder of an adapter")
    if not (folder / WEIGHTS).is_file():
        hint = "pickled weights are not read: save them with safe_serialization" if any(folder.glob("*.bin")) else None
        raise BadInput(f"{WEIGHTS} is missing", place=str(folder), hint=hint)
    return folder / WEIGHTS


def adapt(
    base: Mapping[str, TensorAt], config: Mapping[str, Any], adapter: Path, stored: Iterable[TensorAt]
) -> Adaptation:
    """A base's tensors as the model has them that PEFT runs, unmerged, with an adapter.

    Args:
        base: the tensors of the base's folder, by name.
        config: the base's config.json.
        adapter: the adapter's folder.
        stored: the tensors of its ``weights_file``.

    Raises:
        BadInput: an adapter that adds more than products of two matrices, or does not fit the base.
    """
    settings = _settings(adapter)
    factors: dict[str, dict[str, TensorAt]] = {}
    whole: dict[str, TensorAt] = {}
    for tensor in stored:
        name = plain_name(tensor)
        if match := FACTOR.fullmatch(name):
            factors.setdefault(match["module"], {})[match["kind"]] = tensor
        elif ".lora_" in name:
            raise BadInput(f"'{tensor.name}' is not supported", place=str(adapter), hint=MERGE_FIRST)
        else:
            whole[name] = tensor
    if not factors and not whole:
        raise BadInput(f"{WEIGHTS} holds no tensors", place=str(adapter))
    names = _Names(base, adapter)
    changed: dict[str, Source] = {}
    for name, tensor in whole.items():
        place = names.of(name)
        _check_shape(tensor.shape, names.tensor(place).shape, name, adapter)
        changed[place] = tensor
    for module, parts in factors.items():
        place = names.of(f"{module}.weight")
        under = changed.get(place, names.tensor(place))  # PEFT saves an adapted embedding whole beside its factors
        assert isinstance(under, TensorAt)  # no module has two pairs
        changed[place] = _adapted(under, parts, module, settings, str(config.get("model_type")), adapter)
    untied = _untied(base, changed, config, settings, adapter)
    rest = {name: each for name, each in changed.items() if name not in base}
    return Adaptation({name: changed.get(name, tensor) for name, tensor in base.items()} | rest, untied)


def _settings(adapter: Path) -> dict[str, Any]:
    """The adapter's settings; ``BadInput`` for those that say more than a product of two matrices."""
    settings = read_object(adapter / SETTINGS)
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise BadInput(f"an adapter of kind {kind} is not supported", place=str(adapter), hint=MERGE_FIRST)
    if (bias := settings.get("bias") or "none") != "none":
        raise BadInput(f"bias: {bias} of the adapter is not supported", place=str(adapter), hint=MERGE_FIRST)
    if (start := settings.get("init_lora_weights", True)) not in _PLAIN_STARTS:
        problem = f"init_lora_weights: {start} changes the base's weights before anything is added"
        raise BadInput(problem, place=str(adapter), hint=MERGE_FIRST)
    for key in sorted(settings.keys() - _READ - _INERT):
        if settings[key]:
            raise BadInput(f"'{key}' of the adapter is not supported", place=str(adapter), hint=MERGE_FIRST)
    for key, kinds in (("r", int), ("lora_alpha", int | float), ("rank_pattern", dict), ("alpha_pattern", dict)):
        value = settings.get(key) or ({} if kinds is dict else 8)  # PEFT's defaults
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise BadInput(f"'{key}' is {value!r}", place=f"{adapter}/{SETTINGS}")
        settings[key] = value
    return settings


def _adapted(
    tensor: TensorAt, parts: Mapping[str, TensorAt], module: str, settings: Mapping[str, Any], kind: str, adapter: Path
) -> Adapted:
    embedding = "embedding_A" in parts or "embedding_B" in parts
    a, b = (parts.get(f"embedding_{side}" if embedding else f"{side}.weight") for side in "AB")
    if a is None or b is None or len(parts) != 2:
        raise BadInput(f"of '{module}' one of two factors is missing", place=str(adapter), hint="was it cut off?")
    rank = _by_pattern(settings["rank_pattern"], module, settings["r"])
    alpha = _by_pattern(settings["alpha_pattern"], module, settings["lora_alpha"])
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise BadInput(f"'{module}' is no layer with a matrix", place=str(adapter), hint=MERGE_FIRST)
    if a.shape[0] != rank or b.shape[1] != rank:
        problem = f"the factors of '{module}' are {list(a.shape)} and {list(b.shape)}, and their rank should be {rank}"
        raise BadInput(problem, place=str(adapter))
    transposed = embedding or (kind in _TRANSPOSED and module.rpartition(".")[2] in _TRANSPOSED_LAYERS)
    product = (b.shape[0], a.shape[1])
    _check_shape(product[::-1] if transposed else product, tensor.shape, module, adapter)
    scale = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    return Adapted(tensor, a, b, scale, transposed)


def _by_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """The value of the first pattern that a module's name, or its end, matches."""
    return next((patterns[key] for key in patterns if re.match(rf"(.*\.)?({key})$", module)), default)


def _check_shape(own: tuple[int, ...], base: tuple[int, ...], name: str, adapter: Path) -> None:
    if own != base:
        raise BadInput(
            f"'{name}' is {list(own)} in the adapter and {list(base)} in its base",
            place=str(adapter),
            hint="is it an adapter on another model?",
        )


@dataclass(frozen=True)
class _Names:
    """The names of a base's tensors, which may have other prefixes in its files than in the model in memory."""

    base: Mapping[str, TensorAt]
    adapter: Path

    def of(self, name: str) -> str:
        """A tensor's name in the base's files; of an output layer that is tied, and so in no file, its own."""
        if name in self.base:
            return name
        ends = [each for each in self.base if each.endswith(f".{name}") or name.endswith(f".{each}")]
        if len(ends) == 1:
            return ends[0]
        if not ends and is_head(name) and twin(name, self.base):
            return name
        problem = f"'{name}' is {'several tensors' if ends else 'no tensor'} of the base"
        raise BadInput(problem, place=str(self.adapter), hint="is it an adapter on another model?")

    def tensor(self, name: str) -> TensorAt:
        """The values that a tensor has in the base."""
        place = name if name in self.base else twin(name, self.base)
        assert place is not None  # such names come from ``of``
        return self.base[place]


def _untied(
    base: Mapping[str, TensorAt],
    changed: Mapping[str, Source],
    config: Mapping[str, Any],
    settings: Mapping[str, Any],
    adapter: Path,
) -> bool:
    """Whether an adapter cuts the tie of the embedding and the output layer, where there may be one.

    Raises:
        BadInput: where it changes the embedding of a base whose files have no output layer: that would change too.
    """
    heads = [name for name in {*base, *changed} if is_head(name)]
    ends = [name for name in changed if is_head(name) or twin("lm_head.weight", base) == name]
    if not ends:
        return False
    has_head = re.search("CausalLM|LMHead|MaskedLM|Conditional", str(config.get("architectures"))) is not None
    if has_head and (not heads or settings.get("ensure_weight_tying")):
        problem = f"the adapter changes '{ends[0]}' of a base whose output layer is tied to its embedding"
        raise BadInput(problem, place=str(adapter), hint=MERGE_FIRST)
    return bool(heads)
