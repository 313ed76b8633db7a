"""Building a variant: its method is run on the ingredients; one that does not apply leaves its reason."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.evaluate import predictions
from harness.evaluate.predictions import CachedPredictions
from harness.keys import Key
from harness.methods.method import Method
from harness.models.precision import with_same_precision
from harness.models.ties import with_same_ties
from harness.store import Store, write_json
from harness.systems.parts import MemberPart
from harness.systems.systems import finite_or_none
from harness.systems.written import WrittenAnswers
from harness.types import Combination, Ingredients, NotApplicable, check_tokens, check_vocabulary

BUILT = "built.json"
"""Whether a variant applies, and what building it recorded."""
NOTHING_TO_WRITE = "it answers in writing, and what is scored here is not answered so (tasks of lm-eval that generate)"


def makers(method: Method, kind: str) -> tuple[str, ...]:
    """The code behind a built variant: of the methods only its own, and how the kind of task runs networks."""
    return (method.module, __name__, *predictions.MAKERS, *predictions.code_of_kind(kind))


def build(
    store: Store,
    key: Key,
    method: Method,
    ingredients: Ingredients,
    parameters: Mapping[str, Any],
    cached: CachedPredictions,
    *,
    written: bool = False,
) -> None:
    """Run a method and write what it returns: ``built.json`` and, unless it does not apply, the combination's files.

    ``cached`` are the ingredients' predictions, whose seconds are no part of fitting; ``written`` as of ``Documents``.
    """
    begin = time.perf_counter()
    try:
        combination = _applied(method, ingredients, parameters)
        if isinstance(combination, WrittenAnswers) and not written:
            raise NotApplicable(NOTHING_TO_WRITE)
    except NotApplicable as reason:
        with store.write(key) as folder:
            write_json(folder / BUILT, {"status": "not_applicable", "reason": str(reason)})
        return
    seconds = time.perf_counter() - begin
    record = {"status": "ok", "build_seconds": seconds, "fit_seconds": seconds - cached.seconds}
    with store.write(key) as folder:
        write_json(folder / BUILT, {**record, "details": finite_or_none(combination.details)})
        combination.save(folder)


def _applied(method: Method, ingredients: Ingredients, parameters: Mapping[str, Any]) -> Combination:
    members, named = ingredients.pool_.members, method.uses(parameters)
    used = range(len(members)) if named is None else [position for position in named if position < len(members)]
    on_members = method.family in ("single", "output")
    parts = [] if on_members else [MemberPart(members[position]) for position in used]
    makes_models = not on_members and method.family != "staged"
    if makes_models:  # it may run its members on the task's tokens
        check_vocabulary(parts, ingredients.heldout_)
    if method.family in ("weights", "staged"):
        alike = with_same_precision(with_same_ties(ingredients.pool_, used), used)
        ingredients = replace(ingredients, pool_=alike)
    combination = method.apply(ingredients, parameters)
    if makes_models or not all(isinstance(part, MemberPart) for part in combination.parts()):
        check_tokens(parts, ingredients.heldout_)  # a model made of them is given the task's tokens
    return combination
