"""Which tokens a pool's models read."""

from __future__ import annotations

from dataclasses import replace

from harness.types import Member, Pool, Tokenizer


def reading(pool: Pool, tokenizer: Tokenizer | None) -> Pool:
    """The pool in which every model without a tokenizer of its own reads this one's tokens.

    Fine-tunes made here, adapters, and folders of weights alone bring none: theirs is their base's.
    """

    def with_tokens(member: Member) -> Member:
        return member if member.tokenizer else replace(member, tokenizer=tokenizer)

    base = with_tokens(pool.base) if pool.base else None
    return replace(pool, members=tuple(map(with_tokens, pool.members)), base=base)
