"""Adapters (PEFT) as whole models: merged into a copy of their base, and only where that is what PEFT runs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import BadInput
from harness.models import configuration
from harness.models.adapter_base import ask, base_layout, check_brings, own_order, reorder_rows
from harness.models.checkpoint import error_line, quiet, read_object, signature, stored_tensors
from harness.models.confined import check_adapter
from harness.models.heads import CAUSAL
from harness.models.pretrained import AS_CAUSAL, ReadAs, load_pretrained
from harness.models.weights import ModelWeights, check_finite, without_ties
from harness.types import Architecture

ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TOLERANCE = 1e-3
"""How far merged logits may be from PEFT's own, relative to the largest: float32 rounds a thousand times finer."""


def adapter_architecture(folder: Path, base: Path, read_as: ReadAs = AS_CAUSAL) -> Architecture:
    """The architecture of an adapter's merged model: its base's, but for layers that it repeats and ties that it cuts.

    Raises:
        BadInput: an adapter that cannot be merged, or whose file is not for this base: names that match nothing,
            tensors that are missing or of other shapes; labels that are not the task's.
    """
    files = tuple(signature(folder / name) for name in (ADAPTER, ADAPTER_WEIGHTS))
    described = base_layout(base, read_as)
    own_order(base, read_as)
    return _architecture(folder, files, described.architecture, described.head.drawn, base, read_as)


@lru_cache(maxsize=64)
def _architecture(
    folder: Path, files: Any, of_base: Architecture, lacking: frozenset[str], base: Path, read_as: ReadAs
) -> Architecture:
    config = _config(folder)
    settings = configuration.config_of(configuration.settings_of(of_base))
    module: Any = configuration.without_values(settings, read_as.head)
    if hasattr(config, "init_lora_weights"):
        config.init_lora_weights = True  # others compute with the base's values, and it is loaded over
    try:
        with quiet(), warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            wrapped = _wrapped(module, config)
            _check_names(wrapped, config, folder)
            check_brings(module, lacking, folder)
            cut = read_as.head == CAUSAL and _cuts_tie(module)
            wrapped.merge_and_unload()
    except BadInput:
        raise
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:  # PEFT has no kinds of its own
        fault = f"the adapter cannot be merged into its base {base.name}: {error_line(error)}"
        raise BadInput(fault, place=str(folder)) from None
    settings = module.config
    if cut and settings.get_text_config().tie_word_embeddings:
        settings.tie_word_embeddings = False
    return configuration.like(of_base, settings)


def _config(folder: Path) -> Any:
    """An adapter's configuration; ``BadInput`` where it is of no kind that can be merged."""
    from peft import PeftConfig
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    check_adapter(read_object(folder / ADAPTER), str(folder))
    try:
        config = PeftConfig.from_pretrained(str(folder))
        kind = config.peft_type.value
        tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
    except Exception as error:
        raise BadInput(f"{ADAPTER} is refused by peft: {error_line(error)}", place=str(folder)) from None
    if config.is_prompt_learning or config.is_adaption_prompt or not hasattr(tuner, "merge_and_unload"):
        raise BadInput(
            f"an adapter of kind {kind} adds inputs, not weights: it has no merged model that could be a member",
            place=str(folder),
            hint="adapters on weights can be members, such as LoRA",
        )
    return config


def _wrapped(module: nn.Module, config: Any) -> Any:
    """PEFT's model around a base, the adapter's tensors without their values."""
    from peft import MODEL_TYPE_TO_PEFT_MODEL_MAPPING, PeftModel

    kind: Any = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(config.task_type, PeftModel)
    return kind(module, config, low_cpu_mem_usage=True)


def _check_names(wrapped: Any, config: Any, folder: Path) -> None:
    """``BadInput`` unless the adapter's file has all its tensors and no others."""
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
    from peft.utils import set_peft_model_state_dict

    stored = stored_tensors(folder / ADAPTER_WEIGHTS)
    if not stored:
        raise BadInput(f"{ADAPTER_WEIGHTS} holds no tensors", place=str(folder))
    result: Any = set_peft_model_state_dict(wrapped, stored, low_cpu_mem_usage=True)
    prefix = PEFT_TYPE_TO_PREFIX_MAPPING.get(config.peft_type, "")
    for problem, names in (
        ("has names that match nothing in the base", _unknown(result.unexpected_keys, stored)),
        ("lacks tensors", [name for name in result.missing_keys if prefix in name and ".default" in name]),
    ):
        if names:
            raise BadInput(
                f"{ADAPTER_WEIGHTS} {problem}: '{sorted(names)[0]}'"
                + (f" and {len(names) - 1} more" if len(names) > 1 else ""),
                place=str(folder),
                hint="peft would run the base without them",
            )


def _unknown(unexpected: Iterable[str], stored: Iterable[str]) -> list[str]:
    """The names that PEFT reads nothing from, but for biases of saved modules, which it writes under two names."""
    written_twice = {f"{name[:-4]}modules_to_save.bias" for name in stored if name.endswith(".bias")}
    return [name for name in unexpected if name not in written_twice]


def _cuts_tie(module: Any) -> bool:
    """Whether an adapter changes only one of a tied embedding and output layer, as far as its base knows."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    ends = module.get_input_embeddings(), module.get_output_embeddings()
    return any(isinstance(end, BaseTunerLayer | AuxiliaryTrainingWrapper) for end in ends)


class AdapterWeights(ModelWeights):
    """The tensors of an adapter's merged model, in float32: merged in memory when first asked for, and kept."""

    def __init__(self, folder: Path, base: Path, read_as: ReadAs = AS_CAUSAL) -> None:
        self.folder, self.base, self.read_as = folder, base, read_as
        self._state: Mapping[str, Tensor] | None = None

    @property
    def _tensors(self) -> Mapping[str, Tensor]:
        if self._state is None:
            self._state = without_ties(self.module())
        return self._state

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def module(self) -> nn.Module:
        """The merged model, new at every call, in float32 and eval mode."""
        return merge_adapter(self.folder, self.base, self.read_as)


def merge_adapter(folder: Path, base: Path, read_as: ReadAs = AS_CAUSAL) -> nn.Module:
    """An adapter merged into its base, in float32 and eval mode, checked against PEFT's unmerged model.

    What PEFT's modules share, such as tied embeddings and repeated layers, is made two before: PEFT's own merge would
    change both where the adapter changes one.

    Raises:
        BadInput: as ``adapter_architecture``; weights that are NaN or infinite; a merged model that gives other
            logits than the adapter does.
    """
    architecture, described = adapter_architecture(folder, base, read_as), base_layout(base, read_as)
    own, order = own_order(base, read_as)
    module: Any = load_pretrained(base, own)
    with quiet(), warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.no_grad():
        warnings.simplefilter("ignore")
        wrapped = _adapted(module, folder).eval()
        tokens = _own_tokens(wrapped.peft_config["default"])
        expected = ask(wrapped, module, described, tokens)
        _unshare(wrapped)
        merged: Any = wrapped.merge_and_unload().eval()
        _tie(merged, architecture)
        check_finite(folder.name, merged)
        merged_logits = ask(merged, merged, described, tokens)
    gap = float((merged_logits - expected).abs().max() / expected.abs().max())
    if not gap < TOLERANCE:
        raise BadInput(
            f"merged into its base the adapter is another model: its logits are {gap:.2g} of the largest apart",
            place=str(folder),
        )
    reorder_rows(merged, described, order)
    result: nn.Module = merged
    return result


def _adapted(module: nn.Module, folder: Path) -> Any:
    """PEFT's model of a base and an adapter; ``BadInput`` for settings that it only looks at now."""
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(module, str(folder), local_files_only=True)
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise BadInput(f"{ADAPTER} is refused by peft: {error_line(error)}", place=str(folder)) from None


def _own_tokens(config: Any) -> list[int]:
    """Some of the tokens whose embeddings an adapter trains, if it does so one by one."""
    named = getattr(config, "trainable_token_indices", None) or []
    return (named if isinstance(named, list) else [index for each in named.values() for index in each])[:16]


def _unshare(module: nn.Module) -> None:
    """Give every module parameters of its own."""
    seen: set[int] = set()
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is None:
                continue
            if id(parameter) in seen:
                part._parameters[name] = nn.Parameter(parameter.detach().clone(), requires_grad=False)
            seen.add(id(part._parameters[name]))


def _tie(merged: Any, architecture: Architecture) -> None:
    """Make one again of what the architecture ties."""
    text = configuration.config_of(configuration.settings_of(architecture)).get_text_config()
    if hasattr(text, "tie_word_embeddings"):
        merged.config.tie_word_embeddings = text.tie_word_embeddings
    merged.tie_weights()
