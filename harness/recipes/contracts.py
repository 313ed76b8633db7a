"""Which methods there are, and which models each can merge."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import BadInput
from harness.streaming.rules import RULES, Rule

ELSEWHERE = {
    "multislerp": "'karcher' is the mean on the sphere too",
    "ram": "'ties' is the nearest to it",
    "ramplus_tl": "'ties' is the nearest to it",
}
"""Methods that mergekit has and this has not, each with what comes nearest."""


def rule_of(method: str, place: str) -> Rule:
    """The rule of a method's name; ``BadInput`` where there is none."""
    if method in RULES:
        return RULES[method]
    if method in ELSEWHERE:
        problem = f"mergekit's method '{method}' is not supported"
        raise BadInput(problem, place=place, choices=RULES, hint=ELSEWHERE[method])
    raise BadInput(f"unknown method '{method}'", place=place, given=method, choices=RULES)


def check_inputs(rule: Rule, inputs: Sequence[tuple[str, str]], base: str | None, place: str) -> None:
    """Whether a method can merge these models.

    Args:
        rule: of the method.
        inputs: each model with the place where it is named.
        base: the model that is the base, where one is said to be.
        place: of all of them.

    Raises:
        BadInput: a model twice, no base where one is needed, too few models or too many.
    """
    names = [name for name, _ in inputs]
    for k, (name, at) in enumerate(inputs):
        if name in names[:k]:
            raise BadInput(f"the model '{name}' is named twice", place=at, hint="add up its weights")
    if rule.base == "ignored":
        base = None
    if base is not None and base not in names:
        problem = f"the base '{base}' is not among the models of this slice"
        raise BadInput(problem, place=place, hint="name it as a source with its own layer_range")
    if base is None and rule.base == "required":
        problem = f"the method '{rule.name}' needs a 'base_model'"
        raise BadInput(problem, place=place, hint="the model that the others were trained from, or one of the models")
    others = len(names) - (base is not None)
    _check_count(rule, "models", names, len(names), rule.fewest, rule.most, place)
    what = "models beside the base" if rule.base != "ignored" else "models"
    _check_count(rule, what, names, others, rule.fewest_fine_tunes, rule.most_fine_tunes, place)


def _check_count(
    rule: Rule, what: str, names: Sequence[str], count: int, fewest: int, most: int | None, place: str
) -> None:
    if count >= fewest and (most is None or count <= most):
        return
    wanted = f"{fewest} or more" if most is None else str(most) if fewest in (most, 0) else f"{fewest} to {most}"
    if most == 1:
        what = what.replace("models", "model", 1)
    listed = ", ".join(f"'{name}'" for name in names)
    raise BadInput(f"the method '{rule.name}' merges {wanted} {what}, not {count}: {listed}", place=place)
