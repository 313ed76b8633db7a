"""How much work each expert of a network has, by layer and by group of examples."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness.merging.experts import Form
from harness.merging.own_data import spread
from harness.models import forward
from harness.moe.gating import Gate
from harness.types import Split


def loads(module: nn.Module, form: Form, split: Split) -> dict[str, Any]:
    """How much work each expert has, as details: the share of rows (tokens of a text) that it runs for.

    ``expert_load`` is the mean over the layers that have experts, whose own are ``expert_load_by_layer``, and
    ``expert_load_by_group`` that of each group of examples; each list sums to k. Counted on a few examples of each
    group.

    Args:
        module: a sparse network, in eval mode.
        form: of it.
        split: the examples.
    """
    groups = list(split.groups) or [""] * len(split.inputs)
    rows = {group: [row for row, of in enumerate(groups) if of == group] for group in dict.fromkeys(groups)}
    few = {group: split.inputs[spread(split, some)] for group, some in rows.items()}
    by_group = {group: _loads(module, form, inputs, split.batch) for group, inputs in few.items()}
    mean = torch.stack(list(by_group.values())).mean(dim=0)
    found: dict[str, Any] = {"expert_load": mean.mean(dim=0).tolist()}
    if len(form.places) > 1:
        found["expert_load_by_layer"] = mean.tolist()
    if len(by_group) > 1:
        found["expert_load_by_group"] = {group: load.mean(dim=0).tolist() for group, load in by_group.items()}
    return found


def _loads(module: nn.Module, form: Form, inputs: Tensor, batch: int) -> Tensor:
    """Of each place the share of the rows that each expert runs for [places, experts]."""
    counts: list[Any] = [0] * len(form.places)
    rows = [0] * len(form.places)

    def observe(place: int, router: nn.Module, given: Any, found: Any) -> None:
        chosen, scores = (found.chosen, found.logits) if isinstance(router, Gate) else (found[2], found[0])
        counts[place] += torch.bincount(chosen.flatten(), minlength=scores.shape[-1]).double().cpu()
        rows[place] += len(chosen)

    with ExitStack() as stack, torch.inference_mode():
        for place, router in enumerate(form.routers(module)):
            stack.callback(router.register_forward_hook(partial(observe, place)).remove)
        for some in inputs.split(batch):
            forward.logits(module, some)
    return torch.stack([count / of for count, of in zip(counts, rows, strict=True)])
