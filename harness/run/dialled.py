"""The settings of staged systems on test as operating points: each system's curve of quality against cost."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from harness.cost.dials import Settings
from harness.evaluate.families import Family
from harness.evaluate.operating import Point
from harness.evaluate.outcomes import aligned
from harness.evaluate.ways import way_of
from harness.keys import digest
from harness.results.columns import paired
from harness.run.plan import Plan
from harness.run.stages.dial import Dial
from harness.run.stages.setting import documents_of
from harness.suite.file import MAIN


def dialled(plan: Plan, scored: Collection[str], unit: str, reference: float | None) -> Iterator[Family]:
    """A family for each dial of the main pool's staged variants, its settings from the cheapest to the dearest.

    Variants that are set differently on one dial are one family, under the name of the first.
    Several seeds have held-out splits of their own to find settings on: those at the same place of the dial are one.

    Args:
        plan: of the run.
        scored: the variants with scores on all seeds.
        unit: what the run counts the cost of serving in (``serving.title_of``).
        reference: what its reference takes for an example, in that unit; without it there is nothing to count in.
    """
    column = paired()[plan.suite.file.scores[0]]
    if not reference or not plan.setting.kind.inputs_are_scored:
        return
    ids = [documents_of(plan.setting.of(seed)).ids for seed in plan.seeds]
    known: dict[str, Family] = {}
    for name, variant in plan.variants[plan.seeds[0]].items():
        if name not in scored or variant.declared.family != "staged" or variant.pool.name != MAIN:
            continue
        found = [Dial(plan.setting.of(seed), plan.variants[seed][name]).read() for seed in plan.seeds]
        settings = [each for each in found if each and each.unit == unit and column.outcome in each.outcomes]
        same = digest([[each.cost.tobytes().hex() for each in settings], column.outcome, variant.method])
        if same in known:
            known[same] = replace(known[same], variants=(*known[same].variants, name))
        elif len(settings) == len(found):
            way = way_of({"method": variant.method, "family": "staged"})
            known[same] = _family(name, way or "", settings, ids, str(column.outcome), column.sign, reference)
    yield from known.values()


def _family(
    name: str, way: str, settings: Sequence[Settings], ids: Sequence[Sequence[str]], outcome: str, sign: int,
    reference: float,
) -> Family:  # fmt: skip
    count = min(map(len, settings))
    places = [np.linspace(0, len(each) - 1, count).round().astype(int) for each in settings]
    levels = np.unique(np.concatenate([each.cost.ravel() for each in settings]))
    points = []
    for at in range(count):
        values = aligned([sign * each.outcomes[outcome][p[at]] for each, p in zip(settings, places, strict=True)], ids)
        costs = aligned([each.cost[p[at]] for each, p in zip(settings, places, strict=True)], ids)
        dear = np.where(np.isnan(costs), np.nan, costs == levels[-1]) if len(levels) == 2 else None
        points.append(Point.of(f"{name}, setting {at + 1} of {count}", values, costs / reference, dear))
    first, last = points[0], points[-1]
    never, always = first.strong, last.strong
    if never is not None and always is not None and np.nanmax(never) == 0 and np.nanmin(always) == 1:
        return Family(name, tuple(points), first, last, way)
    return Family(name, tuple(points), way=way)
