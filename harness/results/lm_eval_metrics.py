"""What is known of lm-eval's metrics: the direction from its own registry, the range of those that are shares."""

from __future__ import annotations

from harness.results.metric import Better

SHARES = frozenset({"acc", "acc_all", "acc_bytes", "acc_norm", "exact_match"})
"""Between 0 and 1; lm-eval's registry has no ranges."""


def better(metric: str) -> Better | None:
    """Which is better; None where lm-eval does not know the metric: a task's own."""
    from lm_eval.api import metrics  # noqa: F401  (which fills the registry)
    from lm_eval.api.registry import higher_is_better_registry

    if metric not in higher_is_better_registry:
        return None
    return "higher" if higher_is_better_registry[metric] else "lower"
