"""Tiny models in folders with tokenizers of their own, and mergekit's merges of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from harness.streaming.plan import Adapted, Source, TensorAt
from tests.models.families import build

SPECIAL = ("<s>", "<unk>")


def word_tokenizer(words: Sequence[str], added: Sequence[str] = (), **settings: Any) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, in the order of their ids after those of ``SPECIAL``."""
    ids = {word: number for number, word in enumerate((*SPECIAL, *words))}
    inner = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    inner.add_special_tokens(list(SPECIAL))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", unk_token="<unk>", **settings)
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in added])
    return tokenizer


def write_model(folder: Path, kind: str = "llama", seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A tiny model of a kind, saved in a dtype; the model."""
    module: Any = build(kind, seed).to(dtype)
    module.config.dtype = dtype
    module.save_pretrained(folder)
    return module


def mergekit_merge(recipe: Mapping[str, Any], out: Path) -> Path:
    """What mergekit makes of a recipe, in a folder."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    text = yaml.safe_dump(dict(recipe), sort_keys=False)
    config = MergeConfiguration.model_validate(yaml.safe_load(text))
    run_merge(config, str(out), MergeOptions(quiet=True, copy_tokenizer=True), config_source=text)
    return out


def tensors_in(file: Path) -> dict[str, TensorAt]:
    """Where the tensors of a safetensors file lie, by its header."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    return {
        name: TensorAt(file, name, each["dtype"], tuple(each["shape"]), 8 + length + begin, end - begin)
        for name, each in header.items()
        if name != "__metadata__"
        for begin, end in [each["data_offsets"]]
    }


def values(source: Source) -> torch.Tensor:
    """A tensor in float64, from the bytes that its place names; with an adapter's product added where it has one."""
    if isinstance(source, Adapted):
        product = source.scale * values(source.b) @ values(source.a)
        return values(source.tensor) + (product.T if source.transposed else product)
    content = source.path.read_bytes()[source.offset : source.offset + source.nbytes]
    kind = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[source.dtype]
    return torch.frombuffer(bytearray(content), dtype=kind).view(source.shape).double()
