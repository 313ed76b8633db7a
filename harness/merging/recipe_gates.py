"""Routers of mergekit-moe's recipes: drawn, or made of what the base makes of each expert's prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt

import torch
from torch import Tensor

from harness.merging.experts import Form
from harness.merging.moe_recipe import MoeRecipe
from harness.merging.own_data import batches_of_texts
from harness.merging.prototypes import mean_states, unit
from harness.models.weights import load_module
from harness.types import Member, NotApplicable

EMBEDDING = "model.embed_tokens.weight"

States = Callable[[Sequence[Tensor]], list[Tensor]]
"""Of batches of tokens [1, T + 1] the vector [inputs] that stands for them at each place."""


def routers(
    recipe: MoeRecipe, form: Form, base: Member, generator: torch.Generator, device: torch.device
) -> list[Tensor]:
    """Of each place the weight [experts, inputs].

    - ``random``: standard normal; ``uniform_random``: within ±1 / sqrt(inputs).
    - ``hidden``: the mean of what enters the layer at the last token of each prompt, that of the negative prompts
      subtracted, of length 1. The base is run in float32 (mergekit-moe: in bfloat16).
    - ``cheap_embed``: the same of the sum of the prompts' embeddings, which is first made of length 1.

    Raises:
        NotApplicable: prompts for what reads no text.
    """
    experts, widths = len(recipe.experts), [form.inputs(place, base.weights) for place in form.places]
    if recipe.gate_mode == "random":  # in one draw, as mergekit-moe has it
        return list(torch.randn(len(widths), experts, widths[0], generator=generator))
    if recipe.gate_mode == "uniform_random":
        scale = sqrt(1 / widths[0])
        return list(torch.rand(len(widths), experts, widths[0], generator=generator) * 2 * scale - scale)
    if base.tokenizer is None or not form.layers:
        raise NotApplicable(f"gate_mode '{recipe.gate_mode}' is for language models: 'random' is for all")
    states = _hidden(form, base, device) if recipe.gate_mode == "hidden" else _embedded(form, base)
    rows = []
    for expert in recipe.experts:
        row = states(batches_of_texts(expert.positive_prompts or [], base.tokenizer))
        if expert.negative_prompts:
            against = states(batches_of_texts(expert.negative_prompts, base.tokenizer))
            row = [one - other for one, other in zip(row, against, strict=True)]
        rows.append([unit(each) for each in row])
    return [torch.stack([row[place] for row in rows]) for place in range(len(widths))]


def _hidden(form: Form, base: Member, device: torch.device) -> States:
    module = load_module(base).to(device)
    return lambda batches: mean_states(module, form.layers, batches, "last")


def _embedded(form: Form, base: Member) -> States:
    table = base.weights[EMBEDDING].float()

    def states(batches: Sequence[Tensor]) -> list[Tensor]:
        tokens = torch.cat([batch[0, :-1] for batch in batches])
        return [unit(table[tokens].sum(dim=0))] * len(form.places)

    return states
