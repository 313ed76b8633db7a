"""Routers of experts without training: the mean states of the data that each expert is for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from harness.merging.experts import Form
from harness.models import forward

States = Literal["experts", "last"]
"""Which states a prototype is the mean of: what the experts are given, over all tokens; or of every text what enters
the layer at its last token, as mergekit-moe's ``hidden`` has it."""


def prototypes(module: nn.Module, form: Form, own: Sequence[Iterable[Tensor]], states: States) -> list[Tensor]:
    """Of each place the weight [experts, inputs] whose rows are the experts' mean states, each of length 1.

    A prototype without any batches, or of states that are all zero, is zeros: another expert is preferred to it.

    Args:
        module: the dense network that is run, in eval mode.
        form: where its experts go.
        own: of each expert the batches [B, ...] that tell what it is for, as ``forward.logits`` takes them.
        states: which states count.
    """
    watched = form.places if states == "experts" else form.layers
    means = [mean_states(module, watched, batches, states) for batches in own]
    widths = [next(mean[place].shape for mean in means if mean) for place in range(len(watched))]
    rows = [[mean[place] if mean else torch.zeros(widths[place]) for mean in means] for place in range(len(watched))]
    return [torch.stack([unit(row) for row in of_place]) for of_place in rows]


def unit(row: Tensor) -> Tensor:
    """A vector made of length 1; zeros stay zeros."""
    return row / row.norm().clamp(min=1e-8)


def mean_states(module: nn.Module, watched: Sequence[str], batches: Iterable[Tensor], states: States) -> list[Tensor]:
    """What the modules of these names are given [inputs], its mean over rows; empty where there are no batches."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def observe(name: str, given: Tensor) -> None:
        rows = (given[:, -1] if states == "last" else given).reshape(-1, given.shape[-1]).double()
        sums[name] = sums.get(name, 0) + rows.sum(dim=0)
        counts[name] = counts.get(name, 0) + len(rows)

    with ExitStack() as stack, torch.inference_mode():
        for name in watched:
            hook = partial(lambda name, module, given: observe(name, given[0]), name)
            stack.callback(module.get_submodule(name).register_forward_pre_hook(hook).remove)
        for batch in batches:
            forward.logits(module, batch)
    return [(sums[name] / counts[name]).float().cpu() for name in watched] if sums else []
