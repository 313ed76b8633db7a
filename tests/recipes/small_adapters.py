"""Tiny bases, and LoRA adapters on them with all their values drawn."""

from __future__ import annotations

import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.models.families import build
from tests.recipes.tiny_folders import write_model

KINDS: dict[str, Any] = {
    "llama": AutoModelForCausalLM,
    "gpt2": AutoModelForCausalLM,
    "bert": AutoModelForSequenceClassification,
    "roberta": AutoModelForSequenceClassification,
    "tied": AutoModelForCausalLM,
}
"""For each base the class that reads it."""


def write_bases(root: Path) -> None:
    """A folder for each of ``KINDS``; "tied" is a llama whose output layer is its embedding."""
    write_model(root / "llama")
    write_model(root / "gpt2", "gpt2")
    for kind in ("bert", "roberta"):
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                      intermediate_size=48, vocab_size=64, num_labels=3)  # fmt: skip
        AutoModelForSequenceClassification.from_config(config).save_pretrained(root / kind)
    tied: Any = build("llama")
    tied.config.tie_word_embeddings = True
    tied.tie_weights()
    tied.save_pretrained(root / "tied")


def put(folder: Path, base: Path, reader: Any = AutoModelForCausalLM, seed: int = 3, **settings: Any) -> Path:
    """An adapter in a folder, all of whose values are drawn."""
    torch.manual_seed(seed)
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 6, **settings})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: Any = peft.get_peft_model(reader.from_pretrained(base), deepcopy(config))
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.2 * torch.randn_like(parameter))
        module.save_pretrained(folder)
    return folder
