"""Tiny models in folders with tokenizers of their own, and mergekit's merges of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

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
