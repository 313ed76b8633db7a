"""Tiny dense decoders of several kinds, near each other, as members of a pool."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from harness.checks.pools import ingredients, split
from harness.models.configuration import architecture_of
from harness.models.weights import module_with, without_ties
from harness.registry import METHODS
from harness.types import Combination, Member, Pool, Split

VOCABULARY, LENGTH = 50, 9
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32, "initializer_range": 0.3,
         "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}  # fmt: skip
GROUPS = ("low", "high", "even")


def decoder(kind: str, seed: int = 0, **settings: Any) -> nn.Module:
    """A model of transformers with random weights, in float32 and eval mode; its biases and norms are not trivial."""
    torch.manual_seed(seed)
    module = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZES, **settings})).float()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return module.eval()


def member(name: str, module: nn.Module, **provenance: Any) -> Member:
    weights = {each: tensor.clone() for each, tensor in without_ties(module).items()}
    return Member(name, architecture_of(module.config), weights, "base", 0, provenance, name)


def fine_tunes(kind: str = "llama", count: int = 3, **settings: Any) -> Pool:
    """Members near their base, each trained on a group of its own by its provenance."""
    base = member("base", decoder(kind, **settings))
    members = []
    for k in range(count):
        generator = torch.Generator().manual_seed(k + 1)
        weights = {each: tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
                   for each, tensor in base.weights.items()}  # fmt: skip
        own = {"groups": [GROUPS[k]]}
        members.append(replace(base, name=f"m{k}", digest=f"m{k}", weights=weights, provenance=own))
    return Pool("text", "fine_tunes", tuple(members), base)


def text(rows: int = 8) -> Split:
    """Windows of tokens: of each group as many, with tokens of its own."""
    generator = torch.Generator().manual_seed(5)
    half = VOCABULARY // 2
    low = torch.randint(half, (rows, LENGTH), generator=generator)
    windows = torch.cat([low, low.flip(0) + half, 2 * low.roll(1)])
    labels = windows[:, 1:].flatten()
    groups = [group for group in GROUPS for _ in range(rows)]
    ids = [f"window {row}" for row in range(len(windows))]
    return replace(split("train"), inputs=windows, labels=labels, ids=ids, groups=groups, batch=5, criterion="nll",
                   kind="text")  # fmt: skip


def built(name: str, pool: Pool, seed: int = 5, train: Split | None = None, **parameters: Any) -> Combination:
    """A method on such a pool and text."""
    method = METHODS.get(name)
    train = text() if train is None else train
    given = ingredients(pool, tuple(method.needs), train_=train, heldout_=text(2), seed=seed)
    return method.apply(given, method.validate(parameters))


def logits(module: Any, windows: Tensor) -> Tensor:
    with torch.inference_mode():
        found: Tensor = module(input_ids=windows, use_cache=False).logits
    return found


def dense(weights: Any, like: Member) -> nn.Module:
    """The dense model that holds these weights."""
    return module_with(like.architecture, dict(weights))
