"""Scores that are infinite, since what is true was given probability 0: these are not known, a variant's others are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from harness.results.columns import paired
from harness.results.metric import DOCUMENTS, Column
from harness.run import evaluating
from harness.run.stages.setting import Setting, documents_of
from harness.run.stages.variant import VariantPlan

FLOOR = "a floor ({file: ..., floor: 1e-3}) under the predictions makes it finite"
MIXTURE = "a mixture (linear) with a model that rules out none of them has a finite one"


def why(setting: Setting, plans: Sequence[VariantPlan], score: Column) -> str | None:
    """Why a variant has no such score over these seeds, as what is said of it ("NLL is infinite: ..."); None: not so.

    Args:
        setting: of the run.
        plans: the variant on each seed, with results.
        score: that it does not have.
    """
    if score.outcome == DOCUMENTS:
        names = {name for plan in plans for name in _record(setting, plan).get("infinite", ())}
        lost = any(name.startswith(f"{score.name}/") for name in names)
        return f"{score.title} is infinite: it gave some text probability 0" if lost else None
    return _of_labels(setting, plans, score.title)


def warnings(setting: Setting, plans: Sequence[VariantPlan]) -> Iterator[str]:
    """What a reader should know of a variant on these seeds, with what helps."""
    if words := _of_labels(setting, plans, paired()["nll"].title):
        of_predictions = any(member.why_no_weights for plan in plans for member in plan.pool.members)
        yield f"its {words}; {FLOOR if of_predictions else MIXTURE}"
    if names := sorted({name for plan in plans for name in _record(setting, plan).get("infinite", ())}):
        yield f"it gave some text probability 0, so it has no {', '.join(names)}, which is infinite"


def _of_labels(setting: Setting, plans: Sequence[VariantPlan], title: str) -> str | None:
    excluded = {plan.seed: _record(setting, plan).get("excluded", 0) for plan in plans}
    if not (lost := sum(excluded.values())):
        return None
    labels = sum(len(documents_of(setting.of(plan.seed)).ids) for plan in plans)
    where = ""
    if len(plans) > 1:
        seeds = [str(seed) for seed, count in excluded.items() if count]
        where = f", on seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"
    given = "was" if lost == 1 else "were"
    return f"{title} is infinite: {lost:,} of {labels:,} test labels {given} given probability 0{where}"


def _record(setting: Setting, plan: VariantPlan) -> dict[str, Any]:
    return evaluating.read_record(setting.store, plan.evaluation_key)
