"""Running causal language models on batches of rows, and what has to be known of them first."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from harness.errors import BadInput
from harness.lm.packing import Row
from harness.types import shared_labels, tokens_known

LanguageModel = Callable[..., Any]
"""A transformers causal language model, or any callable of ``input_ids`` ... whose result has ``logits`` [B, T, V]."""

TOLERANCE = 1e-3  # between log-probabilities that are the same but for rounding
MOST_TOKENS = {"cpu": 2048, "cuda": 32768}  # in one batch: beyond, caches overflow and padding grows
MOST_BYTES = 1 << 30  # of one batch's logits on a CPU


@dataclass(frozen=True)
class Batch:
    """Rows as tensors [B, T], and the pairs to read: ``slots`` [P] among the kept positions and ``targets`` [P].

    ``places`` [P] is where each pair's answer goes in the flat list of all target tokens.
    """

    inputs: dict[str, Tensor]
    keep: Tensor
    slots: Tensor
    targets: Tensor
    places: Tensor
    sequences: list[int]

    @property
    def tokens(self) -> int:
        """What a model runs, padding and all."""
        return self.keep.numel()


def make_batch(rows: Sequence[Row], targets: Sequence[Sequence[int]], offsets: Sequence[int], device: Any) -> Batch:
    """One batch of rows; ``targets`` are each sequence's last predictions, and ``offsets`` their first place.

    Rows are padded on the right, where causal attention does not look: a plain row needs no mask, as in lm-eval. A
    tree gets an additive mask [B, 1, T, T] in which padding sees itself, for a row without anything to see is NaN.
    """
    length = max(len(row) for row in rows)
    ids, depths = np.zeros((2, len(rows), length), dtype=np.int64)
    keep = np.zeros((len(rows), length), dtype=bool)
    where: list[np.ndarray] = []
    what: list[int] = []
    places: list[np.ndarray] = []
    for r, row in enumerate(rows):
        ids[r, : len(row)], depths[r, : len(row)] = row.tokens, row.depths
        for sequence, path in row.paths.items():
            count = len(targets[sequence])
            where.append(r * length + path[len(path) - count :])
            what.extend(targets[sequence])
            places.append(np.arange(offsets[sequence], offsets[sequence] + count))
    flat = np.concatenate(where)
    keep.reshape(-1)[flat] = True
    slots = keep.reshape(-1).cumsum()[flat] - 1
    order = np.argsort(slots, kind="stable")
    inputs = {"input_ids": torch.from_numpy(ids)}
    if rows[0].is_tree:
        mask = np.zeros((len(rows), 1, length, length), dtype=bool)
        mask[:, 0, range(length), range(length)] = True
        for r, row in enumerate(rows):
            mask[r, 0, : len(row), : len(row)] = row.allowed()
        inputs |= {"attention_mask": torch.from_numpy(mask), "position_ids": torch.from_numpy(depths)}
    return Batch(
        inputs={name: value.to(device) for name, value in inputs.items()},
        keep=torch.from_numpy(keep).to(device),
        slots=torch.from_numpy(slots[order]).to(device),
        targets=torch.tensor(what)[order].to(device),
        places=torch.from_numpy(np.concatenate(places)[order]),
        sequences=[sequence for row in rows for sequence in row.paths],
    )


def kept_logits(model: LanguageModel, inputs: Mapping[str, Any], keep: Tensor) -> tuple[Tensor, Any]:
    """Logits [R, V] of the positions that ``keep`` [B, T] marks, row by row, and the model's whole output.

    The output layer runs on these positions only where the model can say so (``logits_to_keep`` as a mask).
    """
    device = device_of(model)
    inputs = {name: _as_additive(value, model) if value is not None else None for name, value in inputs.items()}
    keep = keep.to(device)
    narrowed = _takes_mask_of_logits(model)
    output = model(**inputs, **({"logits_to_keep": keep} if narrowed else {}))
    return (output.logits if narrowed else output.logits[keep]), output


def _as_additive(value: Any, model: LanguageModel) -> Any:
    """Tensors where the model is, and a 4-D mask as numbers: a boolean one means nothing to eager attention."""
    if not isinstance(value, Tensor):
        return value
    value = value.to(device_of(model))
    if value.dtype != torch.bool:
        return value
    dtype = dtype_of(model)
    return torch.zeros(value.shape, dtype=dtype, device=value.device).masked_fill_(~value, torch.finfo(dtype).min)


def _takes_mask_of_logits(model: LanguageModel) -> bool:
    """Whether ``logits_to_keep`` may be a mask: so in transformers since its models share ``slice_logits_to_keep``."""
    import transformers.modeling_utils

    known = hasattr(transformers.modeling_utils, "slice_logits_to_keep")
    return known and "logits_to_keep" in parameters_of(model)


def parameters_of(model: LanguageModel) -> Collection[str]:
    """The names of what a model takes."""
    network = network_of(model)
    return inspect.signature(network.forward if isinstance(network, nn.Module) else network).parameters.keys()


def network_of(model: LanguageModel) -> LanguageModel:
    """The model that takes the arguments: adapters and wrappers hand theirs on."""
    inner = model.model if isinstance(model, CutModel) else model
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def device_of(model: LanguageModel) -> torch.device:
    """Where a model runs; the CPU if it does not say."""
    return torch.device(getattr(model, "device", "cpu"))


def dtype_of(model: LanguageModel) -> torch.dtype:
    """The precision a model runs in; float32 if it does not say."""
    return getattr(model, "dtype", torch.float32)


def switch_lengths(model: LanguageModel) -> tuple[int, ...]:
    """Lengths beyond which a model reads all of a batch otherwise (LongRoPE): longer rows must not run with others."""
    settings = getattr(_config(model), "rope_parameters", None) or {}
    by_layer = [settings, *(value for value in settings.values() if isinstance(value, Mapping))]
    longrope = (each for each in by_layer if each.get("rope_type") == "longrope")
    return tuple(each["original_max_position_embeddings"] for each in longrope)


def _config(model: LanguageModel) -> Any:
    """The configuration of a model's text part, or None."""
    config = getattr(model, "config", None)
    return getattr(config, "text_config", None) or config


def shared_vocabulary(models: Sequence[LanguageModel]) -> int:
    """The models' one vocabulary size; each must be in eval mode.

    Raises:
        NotApplicable: naming two models of different vocabularies.
        BadInput: for no models, or one in training mode, whose dropout would make its scores random.
    """
    if not models:
        raise BadInput("no models")
    for k, model in enumerate(models):
        if getattr(model, "training", False):
            raise BadInput("the model is in training mode", place=f"model {k}", hint="call its eval()")
    return shared_labels(*_named_sizes(models), None)


def with_shared_vocabulary(models: Sequence[LanguageModel], tokenizer: Any) -> list[LanguageModel]:
    """The models over the vocabulary that they share (``types.shared_labels``); untouched where it is one.

    Raises:
        NotApplicable: naming a model that lacks tokens of their tokenizer.
    """
    names, sizes = _named_sizes(models)
    known = tokens_known(tokenizer) if len(set(sizes)) > 1 else None
    shared = shared_labels(names, sizes, known)
    return [model if size == shared else CutModel(model, shared) for model, size in zip(models, sizes, strict=True)]


def _named_sizes(models: Sequence[LanguageModel]) -> tuple[list[str], list[int]]:
    names = [f"model {k} ({getattr(model, '__name__', type(model).__name__)})" for k, model in enumerate(models)]
    return names, [vocabulary_size(model) for model in models]


class CutModel:
    """A language model whose logits end with those of the token ``size - 1``: what follows is padding."""

    def __init__(self, model: LanguageModel, size: int) -> None:
        self.model, self.size = model, size

    def __call__(self, **inputs: Any) -> Any:
        output = self.model(**inputs)
        output.logits = output.logits[..., : self.size]
        return output

    def __getattr__(self, name: str) -> Any:
        """What else is asked of it is the model's."""
        return getattr(self.model, name)


def vocabulary_size(model: LanguageModel) -> int:
    """The size of the output layer; found by running one token if it cannot be read."""
    if isinstance(model, CutModel):
        return model.size
    layer = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    weight = getattr(layer, "weight", None)
    if weight is not None:
        return int(weight.shape[0])
    with torch.no_grad():
        token = torch.zeros((1, 1), dtype=torch.int64, device=device_of(model))
        return int(model(input_ids=token).logits.shape[-1])


def automatic_tokens(models: Sequence[LanguageModel], vocabulary: int) -> int:
    """Tokens of a batch such that all models' logits of every one of them fit a part of the memory that is free."""
    device = device_of(models[0])
    if device.type == "cuda":
        bytes_ = torch.cuda.mem_get_info(device)[0] // 4
    else:
        bytes_ = min(MOST_BYTES, psutil.virtual_memory().available // 8)
    size = sum(dtype_of(model).itemsize for model in models) * vocabulary
    return max(1, min(MOST_TOKENS.get(device.type, MOST_TOKENS["cuda"]), bytes_ // size))


def gap(one: Tensor, other: Tensor, model: LanguageModel) -> float:
    """How far apart two accounts of a model's log-probabilities are; 0 where rounding explains it, or both are NaN."""
    same = (one == other) | (one.isnan() & other.isnan())  # two infinities are equal
    widest = float(torch.where(same, 0.0, one - other).abs().max())
    return 0.0 if widest <= max(TOLERANCE, 32 * torch.finfo(dtype_of(model)).eps) else widest


@torch.no_grad()
def row_log_probs(model: LanguageModel, tokens: Sequence[int], **inputs: Tensor) -> Tensor:
    """Log-probabilities [T, V] after each of some tokens, in one plain row."""
    ids = torch.tensor([list(tokens)])
    keep = torch.ones_like(ids, dtype=torch.bool)
    logits, _ = kept_logits(model, {"input_ids": ids, "use_cache": False, **inputs}, keep)
    return torch.log_softmax(logits.float(), dim=-1)


def synchronize(models: Sequence[LanguageModel]) -> None:
    """Wait for accelerators, so that a clock read afterwards counts their work."""
    if any(device_of(model).type == "cuda" for model in models):
        torch.cuda.synchronize()
