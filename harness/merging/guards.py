"""What cannot be merged says why, before any arithmetic."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch

from harness.types import Architecture, Member, NotApplicable


def check_mergeable(members: Sequence[Member]) -> None:
    """Raise ``NotApplicable`` unless the members' weights can be combined element by element.

    Checked in this order: there are members, one architecture, one tokenizer, the same keys; then, tensor by tensor,
    the same shapes and finite values.
    """
    if not members:
        raise NotApplicable("there is nothing to merge: the pool is empty")
    first = members[0]
    for other in members[1:]:
        if other.architecture != first.architecture:
            raise NotApplicable(f"different architectures: {first.name} and {other.name}: {_unlike(first, other)}")
        if other.tokenizer != first.tokenizer:
            raise NotApplicable(f"different tokenizers: the tokens of {first.name} are not those of {other.name}")
    for other in members[1:]:
        differing = sorted(set(first.weights) ^ set(other.weights))
        if differing:
            more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
            raise NotApplicable(f"{first.name} and {other.name} differ in keys: {', '.join(differing[:3])}{more}")
    for name in sorted(first.weights):
        shape = first.weights[name].shape
        for member in members:
            tensor = member.weights[name]
            if tensor.shape != shape:
                raise NotApplicable(
                    f"'{name}' has shape {list(shape)} in {first.name} and {list(tensor.shape)} in {member.name}"
                )
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                kind = "NaN" if torch.isnan(tensor).any() else "infinite"
                raise NotApplicable(f"member {member.name} holds {kind} weights in '{name}'")


def _unlike(first: Member, other: Member) -> str:
    """What two architectures differ in: their kinds, or the first few options."""
    one, two = first.architecture, other.architecture
    if one.name != two.name:
        return f"{one.name} and {two.name}"
    ones, twos = _options(one), _options(two)
    keys = sorted(key for key in ones.keys() | twos.keys() if ones.get(key) != twos.get(key))
    told = [f"{key} {ones.get(key)} and {twos.get(key)}" for key in keys[:3]]
    return ", ".join(told) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _options(architecture: Architecture) -> dict[str, Any]:
    """An architecture's options; those of a folder's config.json one by one."""
    options = dict(architecture.options)
    return options | json.loads(options.pop("config", "{}"))


def different_starts(members: Sequence[Member]) -> str | None:
    """A warning where members come from different initialisations: their average is defined, and rarely any good."""
    starts = {member.start for member in members}
    if len(starts) <= 1:
        return None
    return f"the {len(members)} members come from {len(starts)} different initialisations: expect their average to fail"
