"""Tiny causal language models with random weights, loud enough to disagree, and a BPE tokenizer of their text."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

TEXT = """In the beginning the cook put water and bones into the pot, and the pot stood on the fire all day.
What goes into a stockpot is what is left: onions, leeks, carrots, a bay leaf, pepper, and time.
Nobody knows which of the cooks was right. One said salt at the start; another said salt at the end.
def simmer(pot, hours): return [pot.taste(hour) for hour in range(hours)]
"""
VOCABULARY = 320
LENGTH = 128


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Passes this small are slower on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer():
    """Byte-level BPE with an end token and no beginning token."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|end|>", "<|begin|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([TEXT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>", pad_token="<|end|>")


def build(kind, seed=0, vocabulary=VOCABULARY, length=LENGTH, attention="sdpa"):
    """A model of a kind: two layers, 32 wide, the end token 0."""
    torch.manual_seed(seed)
    shape = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": length,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "attn_implementation": attention,
    }
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(**shape)).eval()
    shape |= {"intermediate_size": 64, "num_key_value_heads": 2}
    if kind == "window":
        return MistralForCausalLM(MistralConfig(sliding_window=8, **shape)).eval()
    kinds = {"llama": (LlamaForCausalLM, LlamaConfig), "qwen2": (Qwen2ForCausalLM, Qwen2Config)}
    model, config = kinds[kind]
    return model(config(**shape)).eval()


@pytest.fixture(scope="session")
def pools():
    """Three models of each kind."""
    return {kind: [build(kind, seed) for seed in range(3)] for kind in ("llama", "gpt2", "qwen2")}


@pytest.fixture(scope="session")
def make():
    """``build``, for a test that wants a model of its own."""
    return build
