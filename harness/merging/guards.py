"""What cannot be merged says why, before any arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.types import Member, NotApplicable


def check_mergeable(members: Sequence[Member]) -> None:
    """Raise ``NotApplicable`` unless the members' weights can be combined element by element.

    Checked in this order: there are members, one architecture, the same keys; then, tensor by tensor, the same shapes
    and finite values.
    """
    if not members:
        raise NotApplicable("there is nothing to merge: the pool is empty")
    first = members[0]
    for other in members[1:]:
        if other.architecture != first.architecture:
            raise NotApplicable(
                f"different architectures: {first.name} is {first.architecture}, {other.name} is {other.architecture}"
            )
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


def different_starts(members: Sequence[Member]) -> str | None:
    """A warning where members come from different initialisations: their average is defined, and rarely any good."""
    starts = {member.start for member in members}
    if len(starts) <= 1:
        return None
    return f"the {len(members)} members come from {len(starts)} different initialisations: expect their average to fail"
