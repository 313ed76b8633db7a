"""From the plan of a pool to its members, and what was found when each was looked through for the first time."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, NoReturn

from torch import Tensor

from harness.keys import Key, digest
from harness.models.architectures import code_of
from harness.pools.source import MemberPlan, PoolPlan
from harness.store import Store, read_json, write_json
from harness.types import Member, Part, Pool, UndeclaredInput


def seed_of(seed: int, *what: Any) -> int:
    """A seed for one thing, derived from the suite's: the same whatever else the suite holds."""
    return int(digest([seed, *what])[:12], 16)


@cache
def member_digests(plan: PoolPlan) -> tuple[str, ...]:
    """The digests of a pool's members, in order, before anything is trained."""
    return tuple(itertools.chain.from_iterable(member.digests for member in plan.members))


@cache
def base_digest(plan: PoolPlan) -> str | None:
    """The digest of a pool's base, before it is trained; None for a pool without one."""
    return plan.base.digests[-1] if plan.base else None


def load_pool(
    plan: PoolPlan, store: Store, used: Collection[int] | None = None, with_base: bool = True
) -> Pool:
    """The pool whose members have all been prepared.

    Args:
        plan: of the pool.
        store: where what was made is.
        used: the positions of the members that will be read, so that the others need not be there: these are known by
            what their plan says, and to touch their weights raises. All of them if None.
        with_base: whether the base is read.
    """
    digests = member_digests(plan)
    wanted = set(digests) if used is None else {digests[position] for position in used}
    by_position = [(planned, i) for planned in plan.members for i in range(len(planned.digests))]
    names = [_name(plan, planned, i) for planned, i in by_position]
    members = [
        planned.member(store, i, name) if planned.digests[i] in wanted else _unread(planned, i, name)
        for (planned, i), name in zip(by_position, names, strict=True)
    ]
    base = plan.base.member(store) if plan.base and with_base else None
    return Pool(plan.name, plan.kind, tuple(members), base)


def _name(plan: PoolPlan, planned: MemberPlan, position: int) -> str:
    if plan.kind == "checkpoints":
        return f"c{position}"
    return planned.name if len(planned.digests) == 1 else f"{planned.name}-{position}"


def _unread(plan: MemberPlan, i: int, name: str) -> Member:
    known, identity = plan.digests[i], plan.identities[i]
    facts = known, plan.tokenizer, identity, plan.says
    return Member(name, plan.architecture, _Unread(), plan.start, plan.seed, {}, *facts)


class _Unread(Mapping[str, Tensor]):
    """The weights of a member that its reader said it would not touch."""

    def _refuse(self, *_: Any) -> NoReturn:
        raise UndeclaredInput("the method touches a member that its parameters do not name ('uses' says which they do)")

    __getitem__ = __iter__ = __len__ = _refuse


def examined_keys(plan: MemberPlan) -> list[Key]:
    """For each member that a plan leaves, the key of what was found when it was read whole for the first time."""
    code = (__name__, "harness.systems.systems", *code_of(plan.architecture))
    return [Key.of("member", code=code, member=member) for member in plan.digests]


def examine(plan: MemberPlan, part: Part, store: Store, key: Key) -> None:
    """Look a member through, once, and keep what a reader of its scores should know.

    Raises:
        BadInput: NaN or infinite weights; a folder's model that is no causal language model.
    """
    notes = plan.examine(part)
    with store.write(key) as folder:
        write_json(folder / "member.json", {"notes": notes})


def notes_of(plan: MemberPlan, store: Store) -> list[str]:
    """What ``examine`` kept."""
    found = [read_json(store.read(key) / "member.json")["notes"] for key in examined_keys(plan) if store.has(key)]
    return list(dict.fromkeys(note for notes in found for note in notes))
