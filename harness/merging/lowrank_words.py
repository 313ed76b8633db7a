"""How a model's difference from its base was written as factors, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.merging.lowrank import Factors, total_error


def described(factors: Mapping[str, Factors], rank: int, whole: Sequence[str]) -> tuple[str, str]:
    """What an adapter holds, and how far it is from what it stands for.

    Args:
        factors: by the names of the weights, one at least.
        rank: the largest that they may have.
        whole: what is saved as it is beside them.
    """
    worst = max(factors, key=lambda name: factors[name].error)
    smaller = sum(each.rank < rank for each in factors.values())
    saved = f"{count(len(whole), 'other')} saved whole ({', '.join(whole[:3])}{', ...' if len(whole) > 3 else ''})"
    return (
        f"{count(len(factors), 'weight')} as factors of rank {rank}"
        + (f", {smaller} of them of a smaller one" if smaller else "")
        + f"; {saved if whole else 'nothing else differs from the base'}",
        f"relative error of the differences (Frobenius) {total_error(factors.values()):.2g} in all, "
        f"{factors[worst].error:.2g} at most, in {worst}",
    )


def count(number: int, what: str) -> str:
    """A number of things."""
    return f"{number} {what}{'' if number == 1 else 's'}"
