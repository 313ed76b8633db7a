"""A base and fine-tunes of a Llama type, to time merges of: ``python -m tests.perf.make_models OUT SIZE COUNT``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

SIZES = {
    "small": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 16, "num_attention_heads": 16},
    "big": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    },
}
"""271 million and 1.1 billion parameters."""

CHANGE = 3e-5
"""The standard deviation of what training changed, with which bfloat16 keeps 70 % of the weights as they were."""


def make(out: Path, size: str, fine_tunes: int) -> None:
    """Folders ``model-0`` (the base), ``model-1``, ... in shards of 200 MB; prints the share of equal weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=32000, tie_word_embeddings=False, **SIZES[size])
    config.dtype = torch.bfloat16
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    base = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model.save_pretrained(out / "model-0", max_shard_size="200MB")
    for k in range(1, fine_tunes + 1):
        equal = total = 0
        for name, parameter in model.named_parameters():
            tuned = (base[name].float() + CHANGE * torch.randn(parameter.shape)).to(torch.bfloat16)
            equal, total = equal + int((tuned == base[name]).sum()), total + tuned.numel()
            parameter.data.copy_(tuned)
        model.save_pretrained(out / f"model-{k}", max_shard_size="200MB")
    print(json.dumps({"parameters": total, "equal": equal / total}))


if __name__ == "__main__":
    make(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
