"""The size of a worker process, for questions that are asked before a run has measured it."""

from __future__ import annotations

from harness.registry import ENGINES
from harness.run.graph import job_of
from harness.run.plan import Plan
from harness.run.planning import modules_to_preload
from harness.run.stages.measure import MeasureOnce


def process_bytes(plan: Plan) -> int:
    """What a worker takes before it holds any model; one is started to see, where that is not known yet.

    Raises:
        RuntimeError: with the reason why it could not be measured.
    """
    stage = MeasureOnce(plan.setting, "memory")
    if not stage.is_done():
        engine = ENGINES.get(plan.options.engine)(workers=1, preload=modules_to_preload(plan))
        (outcome,) = engine.run([job_of(stage)], lambda what, job: None).values()
        if outcome.error:
            raise RuntimeError(outcome.error)
    if (figures := stage.read()) is None:
        raise RuntimeError("the meter of memory gave nothing")
    return int(figures["bytes"])
