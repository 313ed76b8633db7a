"""The jobs of a run that measure what a built variant costs, each in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from harness.cost.cost import Bench, Cost, Figures
from harness.cost.measuring import NotGiven, cost_key, keep, kept, measure, once_key, unmeasured
from harness.engines.engine import Job
from harness.registry import COSTS
from harness.run.jobs import Setting, VariantPlan, is_built, load_built, task_of, why_not_run
from harness.store import Key, Store


def key(cost: Cost, setting: Setting, plan: VariantPlan, reference: VariantPlan) -> Key:
    """The key of one measured cost of a variant."""
    return cost_key(
        cost,
        build=plan.build_key.digest,
        test=plan.data.test,
        batch=plan.data.batch,
        machine=setting.machine,
        reference=reference.build_key.digest,
    )


def key_of_once(cost: Cost, setting: Setting) -> Key:
    """The key of what a cost measures once for all variants."""
    test = task_of(setting).test
    return once_key(cost, device=setting.device, test=test.digest, batch=test.batch, machine=setting.machine)


def job_of_once(cost: Cost, setting: Setting) -> Job:
    """The job that does that."""
    arguments = {"setting": setting, "cost": cost.name}
    return Job(f"measure {cost.name} once", measure_once, arguments, kind="alone", cost=cost.seconds)


def measure_once(setting: Setting, cost: str) -> None:
    """What a cost measures before any variant; what a meter does not give is not kept, and variants do without it."""
    declared, test = COSTS.get(cost), task_of(setting).test
    assert declared.once is not None
    found = declared.once(torch.device(setting.device), test)
    if found is not None:
        keep(Store(setting.store), key_of_once(declared, setting), found)


def measure_variant(setting: Setting, plan: VariantPlan, reference: VariantPlan, costs: Sequence[str]) -> None:
    """Measure these costs of a variant, but for those that are in the store already.

    What a meter did not give this time is not kept, so that the next run tries again: the job fails with the reasons
    once all of its costs have had their turn.
    """
    store = Store(setting.store)
    if not is_built(store, plan):
        return
    problems: list[str] = []
    first: Exception | None = None
    for cost in map(COSTS.get, costs):
        here = key(cost, setting, plan, reference)
        if store.has(here):
            continue
        if cost.beside_reference and not is_built(store, reference):
            problems.append(f"{cost.name} is measured beside {reference.name}, which has no result")
            continue
        try:
            keep(store, here, _found(setting, cost, plan, reference))
        except NotGiven as reason:
            problems.append(str(reason))
        except Exception as error:  # a fault of one cost takes no other cost with it
            problems.append(f"{cost.name}: {type(error).__name__}: {error}")
            first = first or error
    if problems:
        raise RuntimeError("; ".join(problems)) from first


def _found(setting: Setting, cost: Cost, plan: VariantPlan, reference: VariantPlan) -> Figures:
    """Figures of one cost, or why there are none."""
    reason = why_not_run(setting, plan)
    if reason is None and cost.beside_reference:
        reason = why_not_run(setting, reference)
    if reason is not None:
        return unmeasured(cost, reason)
    beside = partial(load_built, setting, reference) if cost.beside_reference else None
    once = kept(Store(setting.store), key_of_once(cost, setting)) if cost.once else None
    load, test = partial(load_built, setting, plan), task_of(setting).test
    return measure(cost, Bench(load, beside, test, torch.device(setting.device), once or {}))
