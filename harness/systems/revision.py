"""Draft and revise for causal language models: what ``refine`` makes of members that go on from a prompt."""

from __future__ import annotations

from harness.systems.systems import member_parts
from harness.systems.written import Revision
from harness.types import Ingredients, NotApplicable

MOST = 4
"""Rounds: what has not settled by then goes in circles."""
TEMPLATE = "{question}{answer}\n\nThe answer above may be wrong. Once more:\n\n{question}"


def revise(
    ingredients: Ingredients, *, model: int, reviser: int | None, rounds: int, template: str = TEMPLATE
) -> Revision:
    """A draft by the member ``model``, and rounds in which the member ``reviser``, or itself, writes it again.

    Raises:
        NotApplicable: for members that are not there, too many rounds, or a template without the answer.
    """
    parts, named = member_parts(ingredients), [model, model if reviser is None else reviser]
    if max(named) >= len(parts):
        raise NotApplicable(f"there is no member {max(named)}: the pool has {len(parts)}")
    if not 0 <= rounds <= MOST:
        raise NotApplicable(f"{rounds} rounds: an answer is written again {MOST} times at most")
    if "{answer}" not in template:
        raise NotApplicable("the template of a round has no {answer}: there is nothing to revise")
    chosen = [parts[position] for position in dict.fromkeys(named)]
    details = {"draft": chosen[0].name, "reviser": chosen[-1].name}
    return Revision(chosen, rounds=rounds, template=template, details=details)
