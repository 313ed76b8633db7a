"""What cannot be merged says why, before any arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.models import configuration
from harness.models.heads import IMAGE
from harness.models.weights import why_not_finite
from harness.types import Architecture, Member, NotApplicable


def check_mergeable(members: Sequence[Member]) -> None:
    """Raise ``NotApplicable`` unless the members' weights can be combined element by element.

    Checked in this order: there are members, one architecture, one tokenizer, the same keys; then, tensor by tensor,
    the same shapes and finite values. Settings of a configuration that change nothing of what is computed may differ
    (``warnings_of`` names them).
    """
    if not members:
        raise NotApplicable("there is nothing to merge: the pool is empty")
    first = members[0]
    for other in members[1:]:
        if unlike := _unlike(first.architecture, other.architecture):
            raise NotApplicable(f"different architectures: {first.name} and {other.name}: {unlike}")
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
            if reason := why_not_finite(tensor):
                raise NotApplicable(f"member {member.name} holds {reason} weights in '{name}'")


def _unlike(one: Architecture, other: Architecture) -> str:
    """What two architectures differ in: their kinds, or the first few options; empty where they compute the same."""
    if one == other:
        return ""
    if one.name != other.name:
        return f"{one.name} and {other.name}"
    if configuration.head_of(one):
        if configuration.reader_of(one) != configuration.reader_of(other):
            what = "image processors" if configuration.head_of(one) == IMAGE else "tokenizers"
            return f"they read examples with different {what}"
        differing = configuration.differences(one, other)
        return _in_words({key: pair for key, pair in differing.items() if not configuration.is_inert(key, one)})
    ones, twos = dict(one.options), dict(other.options)
    return _in_words({key: (ones.get(key), twos.get(key)) for key in sorted(ones.keys() | twos.keys())})


def _in_words(differences: dict[str, tuple[Any, Any]]) -> str:
    pairs = [(key, pair) for key, pair in differences.items() if pair[0] != pair[1]]
    words = [f"{key} {one} and {two}" for key, (one, two) in pairs[:3]]
    return ", ".join(words) + (f" and {len(pairs) - 3} more" if len(pairs) > 3 else "")


def warnings_of(members: Sequence[Member], base: Member | None = None) -> dict[str, list[str]]:
    """What a reader of a merge's scores should know, as ``details``: nothing where there is nothing.

    Different starts, and settings in which the members' configurations differ without computing anything else: the
    merge has the first one's.
    """
    found = [different_starts(members), different_heads(members)]
    everyone = (*((base,) if base else ()), *members)
    for other in everyone[1:]:
        first = everyone[0]
        if first.architecture != other.architecture and configuration.head_of(first.architecture):
            words = _in_words(configuration.differences(first.architecture, other.architecture))
            found.append(f"settings of {first.name} and {other.name} that change no scores were ignored: {words}")
    warnings = [warning for warning in found if warning]
    return {"warnings": warnings} if warnings else {}


def different_heads(members: Sequence[Member]) -> str | None:
    """A warning where members' heads were not trained from one head."""
    if len(members) < 2 or not any(member.provenance.get("own_head") for member in members):
        return None
    return (
        "the base has no head for the task's labels, so the members' heads may have been trained from different "
        "starts: they are averaged like all weights, and against the base they count as changes from zeros"
    )


def different_starts(members: Sequence[Member]) -> str | None:
    """A warning where members come from different initialisations: their average is defined, and rarely any good."""
    starts = {member.start for member in members}
    if len(starts) <= 1:
        return None
    return f"the {len(members)} members come from {len(starts)} different initialisations: expect their average to fail"
