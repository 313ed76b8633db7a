"""Steps whose result is a weighted sum of their sources, with weights that follow from the recipe alone.

Where the sources are one base with something added to each, the sum is the base with the same sum of what is added.
"""

from __future__ import annotations

import math

from harness.streaming.plan import Step
from harness.streaming.sparse_sums import DIVISOR_FLOOR

_ADDING = ("task_arithmetic", "dare_linear", "della_linear", "breadcrumbs")
"""Rules that add task vectors up, from which nothing goes where the density is 1."""

_ROUNDING = 2.0**-23
"""Of float32, in which weights are applied."""


def weights_of_sum(step: Step) -> list[float] | None:
    """What each source is multiplied by, the base too; None where that is not known without their values."""
    if step.rule == "copy":
        return [1.0]
    if step.rule == "passthrough":
        scale = step.each["scale"][0]
        return [1.0 if scale is None else float(scale)]
    if step.rule == "linear":
        weights = [float(weight) for weight in step.each["weight"]]
        divisor = math.fsum(weights) if step.shared["normalize"] else 1.0
        return [weight / divisor for weight in weights]
    return _weights_of_task_vectors(step) if step.rule in _ADDING else None


def keeps_the_base(weights: list[float]) -> bool:
    """Whether a weighted sum of the same tensor is that tensor: the weights sum to 1, to the rounding of float32."""
    return abs(math.fsum(weights) - 1) <= _ROUNDING * max(1.0, math.fsum(map(abs, weights)))


def _weights_of_task_vectors(step: Step) -> list[float] | None:
    tuned = [source for source in range(len(step.sources)) if source != step.base]
    if step.rule != "task_arithmetic" and any(step.each["density"][source] < 1 for source in tuned):
        return None
    total = math.fsum(step.each["weight"][source] for source in tuned)
    divisor = total if step.shared["normalize"] and abs(total) >= DIVISOR_FLOOR else 1.0
    found = [0.0] * len(step.sources)
    for source in tuned:
        found[source] = step.shared["lambda"] * step.each["weight"][source] / divisor
    assert step.base is not None
    found[step.base] = 1 - math.fsum(found)
    return found
