"""What a model's own ``generation_config`` asks for where lm-eval's ``hf`` model obeys it: stops, penalties, drawing.

A task's arguments come before it. All is read by transformers' own functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.errors import BadInput
from harness.lm.forward import LanguageModel, network_of

REFUSED = ("stop_strings", "max_new_tokens")  # the latter would come before the task's max_gen_toks
REFUSED_IF_DRAWN = ("min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
DRAWN = ("do_sample", "temperature", "top_k", "top_p")
HINT = "say otherwise in the task's generation_kwargs, or in the model's folder"


def end_ids(models: Sequence[LanguageModel]) -> frozenset[int]:
    """Tokens at which any of the models ends a text."""
    named = [getattr(getattr(model, "generation_config", None), "eos_token_id", None) for model in models]
    lists = [ids if isinstance(ids, list | tuple) else [ids] for ids in named]
    return frozenset(token for ids in lists for token in ids if token is not None)


def processors(model: LanguageModel, given: Mapping[str, Any], prompts: Tensor, max_new_tokens: int) -> Any:
    """transformers' processors of this model's logits after prompts [B, T] without padding, often none."""
    length = prompts.shape[1]
    settings = _settings(model, {**_undrawn(given), "max_length": length + max_new_tokens})
    if settings is None:
        return []
    network: Any = network_of(model)
    network._prepare_special_tokens(settings, device=prompts.device)
    return network._get_logits_processor(
        settings, input_ids_seq_length=length, encoder_input_ids=prompts, device=prompts.device
    )


def process_logits(model: LanguageModel, given: Mapping[str, Any]) -> list[str]:
    """What the settings change a model's logits by."""
    nothing = torch.zeros((1, 1), dtype=torch.long)
    return [type(each).__name__ for each in processors(model, given, nothing, 1)]


def check_settings(models: Sequence[LanguageModel], given: Mapping[str, Any]) -> None:
    """``BadInput`` for settings that choosing token by token under a rule cannot obey."""
    for k, model in enumerate(models):
        settings = _settings(model, _undrawn(given))
        if settings is None:
            continue
        place = f"generation_config of model {k}"
        if (mode := settings.get_generation_mode()) != "greedy_search":
            what = f"it asks for {mode.value.replace('_', ' ')}"
            raise BadInput(f"{what}, which is not done here", place=place, hint=HINT)
        for name in REFUSED + (REFUSED_IF_DRAWN if given.get("do_sample") else ()):
            if (value := getattr(settings, name, None)) not in (None, 0, 1):
                raise BadInput(f"{name} ({value}) is not obeyed here", place=place, hint=HINT)
        if len(models) > 1 and (names := process_logits(model, given)):
            raise BadInput(f"{', '.join(names)}: done to one model, not to a mixture", place=place, hint=HINT)


def drawing(models: Sequence[LanguageModel], given: Mapping[str, Any]) -> dict[str, Any]:
    """``top_k`` and ``top_p`` of a text that is drawn; ``BadInput`` where the models do not agree on them."""
    all_settings = [_settings(model, {**given, "do_sample": True}) for model in models]
    found = [{"top_k": each.top_k, "top_p": each.top_p} for each in all_settings if each is not None]
    if any(each != found[0] for each in found):
        raise BadInput(f"the models' own settings differ: {found}", place="generation_config", hint=HINT)
    return found[0] if found else {name: given[name] for name in ("top_k", "top_p") if name in given}


def _undrawn(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments without those that say how to draw, which transformers would warn of."""
    return {name: value for name, value in given.items() if name not in DRAWN} | {"do_sample": False}


def _settings(model: LanguageModel, given: Mapping[str, Any]) -> Any:
    """A model's settings as its ``generate`` would complete them; None for what is no transformers model."""
    network: Any = network_of(model)
    if not hasattr(network, "_prepare_generation_config"):
        return None
    return network._prepare_generation_config(None, **given)[0]
