"""Values of parameters that have no meaning for a rule, refused before anything is merged; read without torch."""

from __future__ import annotations

import math
from collections.abc import Iterator

from harness.errors import BadInput
from harness.streaming.plan import Step
from harness.streaming.rules import RULES

SUM_OF_ZERO = 1e-6
"""The share of their magnitudes from which on a sum of weights is more than the rounding of float32."""


def check(step: Step) -> None:
    """Raise ``BadInput``, with the tensor's name and the parameter, for what mergekit refuses or would make NaN of."""
    if step.rule == "copy":
        return
    if step.rule not in RULES:
        raise BadInput(f"unknown rule '{step.rule}'", place=step.name, given=step.rule, choices=RULES)
    for name, value in _values(step):
        if isinstance(value, float) and not math.isfinite(value):
            raise BadInput(f"{name} is {value}", place=step.name, hint="give a finite number")
    if step.rule == "linear" and step.shared["normalize"]:
        weights = step.each["weight"]
        if abs(math.fsum(weights)) <= SUM_OF_ZERO * math.fsum(map(abs, weights)):
            raise BadInput("the weights sum to 0, by which normalize divides", place=step.name, hint="normalize: false")
    if step.rule.startswith(("dare", "della")):
        for source in (i for i in range(len(step.sources)) if i != step.base):
            _check_chances(step, source)
    for gamma in step.each.get("gamma", ()):
        if gamma is not None and gamma < 0:
            raise BadInput(f"gamma {gamma:g} is negative", place=step.name, hint="it is a share of the elements")


def _check_chances(step: Step, source: int) -> None:
    """What a source's entries are kept by must be probabilities; a density of 1 or more keeps them all."""
    density = step.each["density"][source]
    if density < 0 and step.rule.startswith("dare"):
        raise BadInput(f"density {density:g} is no probability", place=step.name, hint="give one from 0 to 1")
    if step.rule.startswith("della") and 0 < density < 1:
        epsilon = step.each["epsilon"][source]
        if density + epsilon >= 1 or density - epsilon <= 0 or density - epsilon > 1 or density + epsilon < 0:
            raise BadInput(
                f"density {density:g} and epsilon {epsilon:g} make chances from {density - epsilon:g} to "
                f"{density + epsilon:g}, which must lie between 0 and 1",
                place=step.name,
                hint=f"give an epsilon below {min(density, 1 - density):g}",
            )


def _values(step: Step) -> Iterator[tuple[str, object]]:
    yield from step.shared.items()
    for name, values in step.each.items():
        yield from ((name, value) for value in values)
