"""Which layer a tensor belongs to, and what it is to the vocabulary, by its name alone.

Names are those of transformers' networks: "model.layers.3.mlp.up_proj.weight" is of layer 3 of "model.layers". A model
may have several such stacks (T5: "encoder.block" and "decoder.block"), and none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Value = TypeVar("Value")

_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.")
# "embed_out" is the head of GPT-NeoX.
_BEFORE = re.compile(r"emb(?!ed_out)|(?:^|\.)(?:wte|wpe|shared|project_in|relative_pe)\.")
_EMBEDDING = re.compile(
    r"(?:^|\.)(?:shared|embed_tokens|wte|word_embeddings|tok_embeddings|embed_in|embeddings)\.weight$"
)
_HEAD = re.compile(
    r"(?:^|\.)(?:\w*lm_head|lm_head\.decoder|predictions\.decoder|vocab_projector|embed_out|proj_out)\.weight$"
    r"|^output\.weight$"
)
_COMPUTED = re.compile(r"(?:^|\.)(?:(?:attn|attention)\.(?:masked_)?bias|rotary_emb\.\w*(?:inv_freq|_cached))$")
_OLD_NORM = re.compile(r"(?<=LayerNorm\.)(?:gamma|beta)$")


@dataclass(frozen=True)
class Layer:
    """Where a tensor lies in a stack."""

    stack: str
    index: int


def layer_of(name: str) -> Layer | None:
    """The layer of a tensor; None where it is of none (embeddings, last norm, head).

    Of layers within layers ("encoder.block.2.layer.0.SelfAttention.q.weight") the outer one counts.
    """
    match = _LAYER.search(name)
    return Layer(name[: match.start(1) - 1], int(match[1])) if match else None


def at_layer(name: str, index: int) -> str:
    """The name of the same tensor in another layer; the name itself of a tensor that is in none."""
    match = _LAYER.search(name)
    return name[: match.start(1)] + str(index) + name[match.end(1) :] if match else name


def stacks(names: Iterable[str]) -> dict[str, int]:
    """The number of layers of each stack: one more than the highest index."""
    found: dict[str, int] = {}
    for name in names:
        if layer := layer_of(name):
            found[layer.stack] = max(found.get(layer.stack, 0), layer.index + 1)
    return found


def comes_before(name: str) -> bool:
    """Whether a tensor that is in no layer is used before the layers (embeddings), and not after them (norm, head)."""
    return bool(_BEFORE.search(name))


def is_head(name: str) -> bool:
    """Whether it is the output matrix of a language model, which some models share with their embeddings."""
    return bool(_HEAD.search(name))


def of_vocabulary(name: str) -> bool:
    """Whether its rows are those of the tokens: embeddings, or the output matrix."""
    return layer_of(name) is None and bool(_EMBEDDING.search(name) or _HEAD.search(name))


def twin(name: str, names: Collection[str]) -> str | None:
    """The tensor whose values a model uses where its file lacks ``name``, since both are tied.

    That is another one of the vocabulary: the embeddings ("shared.weight" first, as in T5), else the output matrix.
    """
    if not of_vocabulary(name):
        return None
    others = [each for each in names if of_vocabulary(each)]
    return min(others, key=lambda each: (is_head(each), not each.startswith("shared."), each), default=None)


def is_computed(name: str, names: Collection[str]) -> bool:
    """Whether a network computes the tensor itself and takes no notice of one in a file.

    Old files hold such ones: masks of attention (where "attn.bias" is the bias of no matrix "attn.weight"), and
    frequencies of rotary embeddings.
    """
    match = _COMPUTED.search(name)
    if match is None:
        return False
    return not name.endswith(".bias") or name.removesuffix("bias") + "weight" not in names


def spelled(name: str) -> str:
    """The name as transformers writes it today: "LayerNorm.gamma" and "LayerNorm.beta" are of old BERT files."""
    return _OLD_NORM.sub(lambda old: "weight" if old[0] == "gamma" else "bias", name)


def spelled_alike(models: Mapping[str, Mapping[str, Value]]) -> dict[str, dict[str, Value]]:
    """The tensors of several models under the same names.

    Files of a base model alone lack the prefix that it has within a model with a head: "h.0.ln_1.weight" and
    "transformer.h.0.ln_1.weight" are the same tensor of GPT-2, and get the longer name.

    Args:
        models: tensors by name, by model.
    """
    renamed = {model: {spelled(name): value for name, value in tensors.items()} for model, tensors in models.items()}
    only = {model: next(iter(found)) for model, tensors in renamed.items() if len(found := stacks(tensors)) == 1}
    longest = max(only.values(), key=len, default="")
    full = next((renamed[model] for model, stack in only.items() if stack == longest), {})
    for model, stack in only.items():
        prefix = longest.removesuffix(stack)
        if prefix and prefix.endswith(".") and longest.endswith(stack):
            renamed[model] = {_full(name, prefix, full): value for name, value in renamed[model].items()}
    return renamed


def _full(name: str, prefix: str, names: Collection[str]) -> str:
    return name if name in names and prefix + name not in names else prefix + name
