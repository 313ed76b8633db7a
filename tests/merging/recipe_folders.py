"""Tiny Llama folders with a tokenizer of words, and recipes of mergekit-moe over them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.merging.decoders import VOCABULARY, dense, fine_tunes

PROMPTS = (["w1 w2 w3", "w4"], ["w5 w6", "w7 w8 w9 w10"], ["w11"])
AGAINST = (["w12 w13"], None, ["w14", "w15 w16"])


def write_folders(folder: Path, kind: str = "llama", dtype: torch.dtype = torch.float32, **settings: Any) -> None:
    """The folders ``base``, ``m0``, ``m1`` and ``m2``, whose dtype is said, as mergekit asks."""
    pool = fine_tunes(kind, **settings)
    words = {"<s>": 0, "<unk>": 1, **{f"w{k}": k + 1 for k in range(1, VOCABULARY - 1)}}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", unk_token="<unk>")
    assert pool.base is not None
    for member in (pool.base, *pool.members):
        module = dense(member.weights, pool.members[0]).to(dtype)
        module.config.dtype = dtype
        module.save_pretrained(folder / member.name)
        tokenizer.save_pretrained(folder / member.name)


def recipe(sources: Sequence[str], gate_mode: str = "hidden", base: str = "base", **more: Any) -> dict[str, Any]:
    """A recipe with prompts for each source, those of all but the second with prompts against it too."""
    experts: list[dict[str, Any]] = []
    for source, prompts, against in zip(sources, PROMPTS, AGAINST, strict=False):
        experts.append({"source_model": source, "positive_prompts": prompts})
        if against:
            experts[-1]["negative_prompts"] = against
    return {"base_model": base, "gate_mode": gate_mode, "experts": experts, **more}


def write_recipe(path: Path, document: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(document, sort_keys=False))
