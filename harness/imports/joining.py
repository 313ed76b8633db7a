"""Joining members that come from files of their own: the questions that all of them answered."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from harness.errors import BadInput

SHOWN = 3


def refuse_twice(ids: pd.Index, place: str, hint: str = "give each row once") -> None:
    """``BadInput`` where a row occurs twice: which of the two counts is not for an import to say."""
    if (twice := ids[ids.duplicated()]).size:
        raise BadInput(f"'{twice[0]}' occurs twice ({twice.size} such rows)", place=place, hint=hint)


def join(
    members: Mapping[str, pd.DataFrame], facts: Mapping[str, pd.DataFrame], place: str
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame, list[str]]:
    """Members' rows and the questions' facts for the questions of all members, in the first member's order.

    Args:
        members: a frame of values by member, indexed by id.
        facts: what each member's files say of the same questions; it must be the same for all.
        place: the source, for messages.

    Returns:
        The members, by name; the questions; and a line where rows were left out.
    """
    names = sorted(members)
    shared = members[names[0]].index
    for name in names[1:]:
        shared = shared[shared.isin(members[name].index)]
    if not shared.size:
        sizes = ", ".join(f"{name}: {len(members[name])}" for name in names[:SHOWN])
        hint = "they must come from the same tasks and the same version of the data"
        raise BadInput(f"no row is answered by all members ({sizes})", place=place, hint=hint)
    questions = facts[names[0]].loc[shared]
    for name in names[1:]:
        other = facts[name].loc[shared]
        for column in questions:
            if (differs := (other[column] != questions[column]).to_numpy()).any():
                row = shared[differs.argmax()]
                problem = f"'{names[0]}' and '{name}' have another {column} for '{row}' ({differs.sum()} such rows)"
                raise BadInput(problem, place=place)
    every = pd.Index([]).append([members[name].index for name in names]).unique()
    lost = [f"{len(every) - len(shared)} of {len(every)} rows that not all members answered"]
    return {name: members[name].loc[shared] for name in names}, questions, lost if len(every) > len(shared) else []
