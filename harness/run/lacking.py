"""Tasks that a variant is not applicable to, beside those that it is scored on."""

from __future__ import annotations

from collections.abc import Sequence

from harness.kinds.kind import LACKING
from harness.run import evaluating
from harness.run.stages.setting import Setting
from harness.run.stages.variant import VariantPlan


def why(setting: Setting, plans: Sequence[VariantPlan]) -> str | None:
    """The tasks that a variant with results has no scores on, on any of these seeds, and why; None: it has all.

    Args:
        setting: of the run.
        plans: the variant on each seed.
    """
    tasks: dict[str, list[str]] = {}
    for plan in plans:
        record = evaluating.read_record(setting.store, plan.evaluation_key)
        for task, reason in record.get(LACKING, {}).items():
            tasks.setdefault(reason, []).append(task)
    each = (f"not applicable to {', '.join(dict.fromkeys(names))}: {reason}" for reason, names in tasks.items())
    return "; ".join(each) or None
