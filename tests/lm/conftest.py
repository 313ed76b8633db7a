"""Tiny causal language models with random weights, loud enough to disagree, and a BPE tokenizer of their text; and
tasks that are answered in writing, with models that know a little.
"""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from tests.lm.written_tasks import load, small_domain, store_of, trained_parts, write_tasks

TEXT = """In the beginning the cook put water and bones into the pot, and the pot stood on the fire all day.
What goes into a stockpot is what is left: onions, leeks, carrots, a bay leaf, pepper, and time.
Nobody knows which of the cooks was right. One said salt at the start; another said salt at the end.
def simmer(pot, hours): return [pot.taste(hour) for hour in range(hours)]
"""
VOCABULARY = 320
LENGTH = 128
LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 24,
            "short_factor": [1.0] * 4, "long_factor": [4.0, 3.0, 2.0, 5.0]}  # fmt: skip
STATES = {"layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 2,
          "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "head_dim": 8,
          "mlp_only_layers": [0, 1]}  # fmt: skip
EAGER = {"attn_implementation": "eager"}
# Families by how they tell tokens apart: from all before, from a window, by distance, from a state
KINDS = {
    "llama": ("llama", {}),
    "gpt2": ("gpt2", {}),
    "qwen2": ("qwen2", {}),
    "window": ("mistral", {"sliding_window": 8}),
    "gemma2": ("gemma2", {"head_dim": 8, "sliding_window": 8, **EAGER}),
    "gemma3": ("gemma3_text", {"head_dim": 8, "sliding_window": 8,
                               "layer_types": ["sliding_attention", "full_attention"]}),
    "neox": ("gpt_neox", {"intermediate_size": 64}),
    "bloom": ("bloom", {"n_layer": 2, "n_head": 4, **EAGER}),
    "longrope": ("phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 24}),
    "mamba": ("mamba", {"state_size": 4, **EAGER}),
    "states": ("qwen3_next", STATES),
    "conv": ("lfm2", {"layer_types": ["conv", "full_attention"]}),
}
OTHERS = {  # those that lm-eval's own model is no oracle for
    "roberta": ("roberta", {"is_decoder": True, "max_position_embeddings": 160, "pad_token_id": 1, **EAGER}),
    "both ways": ("bert", {"is_decoder": False, **EAGER}),
}


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


def build(kind, seed=0, vocabulary=VOCABULARY, length=LENGTH, attention="sdpa", width=32):
    """A model of a kind: two layers, 32 wide, the end token 0."""
    torch.manual_seed(seed)
    shape = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": length,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "attn_implementation": attention,
    }
    grouped = {"intermediate_size": 2 * width, "num_key_value_heads": 2}
    kind, more = {**KINDS, **OTHERS}[kind]
    shape |= more if kind in ("gpt2", "gpt_neox", "bloom") else grouped | more
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape)).eval()


@pytest.fixture(scope="session")
def pools():
    """Three models of each kind."""
    return {kind: [build(kind, seed) for seed in range(3)] for kind in ("llama", "gpt2", "qwen2")}


@pytest.fixture(scope="session")
def make():
    """``build``, for a test that wants a model of its own."""
    return build


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """All tasks that are answered in writing, and some beside them."""
    folder = tmp_path_factory.mktemp("tasks")
    write_tasks(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(folder, tmp_path_factory):
    """Tasks of the folder by name, with a small text to train on."""
    patch, store = pytest.MonkeyPatch(), store_of(tmp_path_factory)
    small_domain(patch)
    yield lambda *names: load(folder, store, *names)
    patch.undo()


@pytest.fixture(scope="module")
def task(loaded):
    return loaded("letters")


@pytest.fixture(scope="module")
def parts(task):
    """Three models that answer it, each in its own words."""
    return trained_parts(task)
