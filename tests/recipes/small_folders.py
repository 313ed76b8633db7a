"""Tiny folders of models of several kinds, and a reader of where their tensors lie that shares no code with ours."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from harness.streaming.plan import TensorAt

SIZES: dict[str, Any] = {
    "vocab_size": 12,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "max_position_embeddings": 8,
}
DECODER = {**SIZES, "num_key_value_heads": 2}
GPT2 = {"vocab_size": 12, "n_embd": 8, "n_head": 2, "n_layer": 3, "n_positions": 8}
DISTILBERT = {"vocab_size": 12, "dim": 8, "hidden_dim": 8, "n_heads": 2, "n_layers": 3, "max_position_embeddings": 8}
T5 = {"vocab_size": 12, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 2}

KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", DECODER),
    "llama-tied": ("LlamaConfig", "LlamaForCausalLM", {**DECODER, "tie_word_embeddings": True}),
    "llama-classifier": ("LlamaConfig", "LlamaForSequenceClassification", DECODER),
    "mistral": ("MistralConfig", "MistralForCausalLM", DECODER),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", DECODER),
    "phi": ("PhiConfig", "PhiForCausalLM", DECODER),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", {**DECODER, "pad_token_id": 0}),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", {**DECODER, "head_dim": 4}),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", GPT2),
    "gpt2-base": ("GPT2Config", "GPT2Model", GPT2),
    "gpt-neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", SIZES),
    "bert": ("BertConfig", "BertForSequenceClassification", SIZES),
    "bert-masked": ("BertConfig", "BertForMaskedLM", SIZES),
    "roberta": ("RobertaConfig", "RobertaForSequenceClassification", SIZES),
    "distilbert": ("DistilBertConfig", "DistilBertForSequenceClassification", DISTILBERT),
    "t5": ("T5Config", "T5ForConditionalGeneration", T5),
    "t5-gated": ("T5Config", "T5ForConditionalGeneration", {**T5, "feed_forward_proj": "gated-gelu"}),
}
"""For each kind the config's class, the model's class and the sizes."""


def config_of(kind: str, **changes: Any) -> transformers.PretrainedConfig:
    config, architecture, sizes = KINDS[kind]
    return getattr(transformers, config)(**{**sizes, **changes}, architectures=[architecture])


@cache
def _module(kind: str, changes: tuple[tuple[str, Any], ...]) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    return getattr(transformers, KINDS[kind][1])(config_of(kind, **dict(changes)))


def write_model(folder: Path, kind: str, seed: int, dtype: torch.dtype = torch.float32, **changes: Any) -> None:
    """A folder as transformers saves it, with weights of its own."""
    module = _module(kind, tuple(changes.items()))
    generator = torch.Generator().manual_seed(seed)
    module.float()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=generator)
    module.to(dtype).config.dtype = dtype
    module.save_pretrained(folder)


def write_models(folder: Path, kind: str, names: Sequence[str] = ("base", "m0", "m1"), **changes: Any) -> None:
    for seed, name in enumerate(names):
        write_model(folder / name, kind, seed, **changes)


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Give a model other tensors by name."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})


def without(piece: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """For ``rewrite``: all but the tensors whose names hold a piece of text."""
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if piece not in name}


@dataclass(frozen=True)
class SmallFolder:
    """A folder with one file, as its header says."""

    tensors: Mapping[str, TensorAt]
    config: Mapping[str, Any]


def read_folder(folder: Path) -> SmallFolder:
    path = folder / "model.safetensors"
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = entry["data_offsets"]
        tensors[name] = TensorAt(path, name, entry["dtype"], tuple(entry["shape"]), 8 + size + start, end - start)
        assert tensors[name].nbytes % max(1, prod(tensors[name].shape)) == 0
    return SmallFolder(tensors, json.loads((folder / "config.json").read_text()))
