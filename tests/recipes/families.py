"""Tiny folders of many families: a base and three fine-tunes of it, as files that transformers wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

VOCABULARY = 48
FINE_TUNES = ("chat", "math", "code")
NAMES = ("base", *FINE_TUNES)

Family = Callable[..., PreTrainedModel]


def _decoder(config: type, model: type, **own: Any) -> Family:
    def build(**settings: Any) -> PreTrainedModel:
        sizes: dict[str, Any] = {
            "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
            "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "bos_token_id": 0,
            "eos_token_id": 1, "pad_token_id": None,
        }  # fmt: skip
        made: PreTrainedModel = model(config(**{**sizes, **own, **settings}))
        return made

    return build


def _gpt2(*, num_hidden_layers: int = 3, **settings: Any) -> PreTrainedModel:
    own = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": num_hidden_layers, "n_head": 2, "n_positions": 64}
    return GPT2LMHeadModel(GPT2Config(**{**own, **settings}, bos_token_id=0, eos_token_id=1))


def _bert(**settings: Any) -> PreTrainedModel:
    own = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
           "intermediate_size": 24}  # fmt: skip
    return BertForSequenceClassification(BertConfig(**{**own, **settings}, num_labels=3))


FAMILIES: dict[str, Family] = {
    "llama": _decoder(LlamaConfig, LlamaForCausalLM),
    "llama_tied": _decoder(LlamaConfig, LlamaForCausalLM, tie_word_embeddings=True),
    "qwen2": _decoder(Qwen2Config, Qwen2ForCausalLM),
    "mistral": _decoder(MistralConfig, MistralForCausalLM),
    "gemma": _decoder(GemmaConfig, GemmaForCausalLM, head_dim=8),
    "phi": _decoder(PhiConfig, PhiForCausalLM, num_key_value_heads=2),
    "gpt2": _gpt2,
    "bert": _bert,
}


def write_models(folder: Path, family: str = "llama", dtype: torch.dtype = torch.float32, *, shards: bool = False,
                 seed: int = 0, **settings: Any) -> None:  # fmt: skip
    """The folders base, chat, math and code: changes of the fine-tunes are small, and 0 for two entries of three."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = FAMILIES[family](**settings)
    words = {word: k for k, word in enumerate(["<s>", "</s>", "<unk>", *(f"w{k}" for k in range(3, VOCABULARY))])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name in NAMES:
        tuned = dict(start)
        for key, tensor in start.items() if name != "base" else ():
            if tensor.is_floating_point():
                change = torch.randn(tensor.shape, generator=generator) * 0.01
                tuned[key] = tensor + change * (torch.rand(tensor.shape, generator=generator) < 1 / 3)
        model.load_state_dict(tuned)
        model.to(dtype).save_pretrained(folder / name, max_shard_size="12KB" if shards else "1GB")
        model.to(torch.float32)
        tokenizer.save_pretrained(folder / name)
