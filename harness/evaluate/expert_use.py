"""Which experts of a mixture run for what: the load of each, and how it is divided by class, or by task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.evaluate.halving import with_fewer
from harness.models import forward
from harness.moe.watching import routers_of, watched
from harness.systems.systems import SingleModel
from harness.types import Combination, Split

EXPERTS = "experts"
"""The key of an evaluation's record."""
MOST = 2000
"""Examples that are run for it, at most, evenly spread over the test split."""


def sparse_network(combination: Combination) -> nn.Module | None:
    """The network of a single model that has experts; None of anything else."""
    return combination.module if isinstance(combination, SingleModel) and routers_of(combination.module) else None


def use_on_inputs(combination: Combination, split: Split) -> dict[str, Any]:
    """What a record says of a mixture's experts on a split, a group for each class; of others nothing."""
    if (module := sparse_network(combination)) is None:
        return {}
    rows = torch.linspace(0, len(split) - 1, min(MOST, len(split))).round().long()
    groups = [str(label) for label in range(int(split.labels.max()) + 1)]

    def use(size: int) -> dict[str, Any]:
        return use_of(module, ((split.inputs[some], split.labels[some]) for some in rows.split(size)), groups)

    return {EXPERTS: with_fewer(use, split.batch)}


def use_of(module: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], groups: Sequence[str]) -> dict[str, Any]:
    """How a network's experts are used, as JSON values.

    Args:
        module: in eval mode.
        batches: inputs [B, ...], as ``forward.logits`` takes them, and the group of each [B], by position.
        groups: their names.

    Returns:
        By layer the ``load``, the share of all rows (of a text: tokens) that each expert runs for, which sums to k, and
        the same ``by_group`` of each group that there is; and the share of pairs that a capacity ``dropped``.
    """
    counts: dict[str, Tensor] = {}  # [groups, E]
    rows = torch.zeros(len(groups), dtype=torch.int64)
    dropped = pairs = 0
    with torch.inference_mode(), watched(module) as watch:
        for inputs, of in batches:
            forward.logits(module, inputs)
            for name, chosen in watch.chosen.items():
                each = of.repeat_interleave(len(chosen) // len(of))
                where = each.unsqueeze(1) * watch.experts[name] + chosen.cpu()
                size = len(groups) * watch.experts[name]
                found = torch.bincount(where.flatten(), minlength=size).view(len(groups), -1)
                counts[name] = counts.get(name, torch.zeros_like(found)) + found
                pairs += chosen.numel()
            dropped += sum(watch.dropped.values())
            rows += torch.bincount(each, minlength=len(groups))
    layers = {
        name: {
            "load": (count.sum(dim=0) / rows.sum()).tolist(),
            "by_group": {group: (count[k] / rows[k]).tolist() for k, group in enumerate(groups) if rows[k]},
        }
        for name, count in counts.items()
    }
    return {"layers": layers, "rows": int(rows.sum()), "dropped": dropped / pairs}
