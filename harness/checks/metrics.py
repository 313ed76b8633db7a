"""The laws of metrics: what every registered metric owes its readers, on predictions that are easy to judge."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import torch

from harness.checks.law import law, laws, require
from harness.evaluate.outcomes import tabulate
from harness.registry import METRICS
from harness.results.metric import SOURCES, Metric, Outcomes
from harness.stats.interval import Interval

ROUNDING = 1e-9


def check_metric(name: str) -> None:
    """Run every law on a registered metric.

    Raises:
        BrokenLaw: the first that does not hold.
    """
    metric = METRICS.get(name)
    for each in laws("metric"):
        each(metric)


@dataclass(frozen=True)
class Predictions:
    """What a system says: log-probabilities [N, C], and the truth [N]."""

    log_probs: np.ndarray
    labels: np.ndarray

    def outcomes(self, metric: Metric, ids: Sequence[str] = ()) -> Outcomes:
        """As a run hands them to a metric, with the outcome that it adds itself."""
        added = {str(metric.column.outcome): metric} if metric.per_example else {}
        labels = self.labels.copy()
        return Outcomes(tabulate(self.log_probs.copy(), labels, added), labels, self.log_probs.shape[1], ids=ids)


@cache
def predictions(classes: int = 3) -> dict[str, Predictions]:
    """Systems by what they are like: one that guesses, one that is right, one that gives exact zeros, ..."""
    rng = np.random.default_rng(classes)
    labels = rng.integers(classes, size=48)
    right = 6.0 * np.eye(classes)[labels]
    wrong = 6.0 * np.eye(classes)[(labels + 1) % classes]
    by_chance = right * rng.uniform(0, 0.5, (48, 1)) + rng.normal(size=right.shape)
    always_first = np.tile(np.arange(classes, 0, -1.0), (48, 1))
    systems = {"guesses": by_chance, "is right": right, "is wrong": wrong, "always says the first": always_first}
    found = {name: Predictions(_normalised(logits), labels) for name, logits in systems.items()}
    with np.errstate(divide="ignore"):
        certain = np.log(np.eye(classes)[labels])  # 0 and -inf
    found["is certain and right"] = Predictions(certain, labels)
    return found | {"guesses one example": Predictions(_normalised(by_chance[:1]), labels[:1])}


def _normalised(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def _cases() -> dict[str, Predictions]:
    three = {f"{name}, of three classes": system for name, system in predictions(3).items()}
    return three | {f"{name}, of two classes": system for name, system in predictions(2).items()}


def _value(given: Interval | float | None) -> float | None:
    """The value alone; None where a metric does not apply."""
    return given.value if isinstance(given, Interval) else given


@law("metric")
def its_column_says_what_it_is(metric: Metric) -> None:
    """The name is an identifier, the meaning is told, the range is not empty, and the source is a known one."""
    column = metric.column
    require(column.name.isidentifier(), "its name is no identifier, as a column of results needs one")
    require(len(column.meaning.split()) > 1, f"its meaning is not told: '{column.meaning}'")
    require(column.least < column.most, f"its range is empty: {column.least} to {column.most}")
    require(column.source in SOURCES, f"its source is '{column.source}', none of {', '.join(SOURCES)}")


@law("metric")
def values_are_finite_and_within_range(metric: Metric) -> None:
    """A value is a finite number from ``least`` to ``most``, or None where the metric does not apply."""
    column = metric.column
    for name, system in _cases().items():
        value = _value(metric.score(system.outcomes(metric)))
        if value is None:
            continue
        require(math.isfinite(value), f"a system that {name} has {value}")
        inside = column.least - ROUNDING <= value <= column.most + ROUNDING
        require(inside, f"a system that {name} has {value}, beyond its range {column.least} to {column.most}")


@law("metric")
def it_applies_to_some_task(metric: Metric) -> None:
    """Of two or of three classes, it has a value."""
    values = [_value(metric.score(system.outcomes(metric))) for system in _cases().values()]
    require(any(value is not None for value in values), "it has no value at all")


@law("metric")
def what_is_better_has_the_better_value(metric: Metric) -> None:
    """Where ``better`` says a direction, a system that is right has no worse value than one that is wrong.

    Of two or of three classes it has a better one, or the metric tells nothing of what is better.
    """
    if metric.column.better is None:
        return
    gaps = []
    for classes in (2, 3):
        right, wrong = (
            _value(metric.score(predictions(classes)[name].outcomes(metric))) for name in ("is right", "is wrong")
        )
        if right is None or wrong is None:
            continue
        ahead = right - wrong if metric.column.better == "higher" else wrong - right
        words = f"{metric.column.better} is better, and a system that is right has {right}, a wrong one {wrong}"
        require(ahead >= -ROUNDING, words)
        gaps.append(ahead)
    words = f"{metric.column.better} is better, and a system that is right has the value of one that is wrong"
    require(not gaps or max(gaps) > ROUNDING, words)


@law("metric")
def order_of_examples_is_irrelevant(metric: Metric) -> None:
    """Examples in another order have the same value."""
    for name, system in _cases().items():
        order = np.random.default_rng(1).permutation(len(system.labels))
        shuffled = Predictions(system.log_probs[order], system.labels[order])
        first, second = (_value(metric.score(each.outcomes(metric))) for each in (system, shuffled))
        require(_equal(first, second), f"a system that {name} has {first}, and in another order {second}")


@law("metric")
def intervals_hold_their_value(metric: Metric) -> None:
    """An interval has its value in it and lies within the range; bounds may both be NaN, where there is none."""
    column = metric.column
    for name, system in _cases().items():
        for found in (metric.score(system.outcomes(metric)), _over_seeds(metric, [system] * 3)):
            if not isinstance(found, Interval) or (math.isnan(found.low) and math.isnan(found.high)):
                continue
            bounds = column.least - ROUNDING, found.low, found.value, found.high, column.most + ROUNDING
            ordered = all(low <= high + ROUNDING for low, high in pairwise(bounds))
            require(ordered, f"a system that {name} has {found}, of a range {column.least} to {column.most}")


@law("metric")
def intervals_are_declared(metric: Metric) -> None:
    """A metric that gives intervals says what the names of their bounds begin with."""
    for name, system in _cases().items():
        for found in (metric.score(system.outcomes(metric)), _over_seeds(metric, [system] * 3)):
            with_bounds = isinstance(found, Interval) and math.isfinite(found.low)
            declared = metric.column.interval is not None
            require(declared or not with_bounds, f"a system that {name} has {found}, and 'interval' is not declared")


@law("metric")
def equal_seeds_have_the_value_of_one(metric: Metric) -> None:
    """Over seeds that say the same, the value is that of each of them."""
    for name, system in _cases().items():
        if metric.over_seeds is None:
            return
        one, all_of_them = _value(metric.score(system.outcomes(metric))), _value(_over_seeds(metric, [system] * 3))
        require(_equal(one, all_of_them), f"a system that {name} has {one}, and over three equal seeds {all_of_them}")


@law("metric")
def seeds_with_other_examples_have_their_mean(metric: Metric) -> None:
    """Over seeds that were scored on other examples each, the value is the mean of theirs (``outcomes.stacked``)."""
    if metric.over_seeds is None:
        return
    for name, system in _cases().items():
        third = len(system.labels) // 3
        if third < 2:
            continue
        parts = [slice(None, third), slice(third, None)]
        seeds = [Predictions(system.log_probs[part], system.labels[part]) for part in parts]
        ids = [f"example {i}" for i in range(len(system.labels))]
        given = [each.outcomes(metric, ids[part]) for each, part in zip(seeds, parts, strict=True)]
        found, values = _value(metric.over_seeds(given)), [_value(metric.score(each)) for each in given]
        known = [value for value in values if value is not None]
        expected = sum(known) / len(known) if len(known) == len(values) else None
        require(_equal(found, expected), f"a system that {name} has {values} on its seeds, and {found} over them")


@law("metric")
def the_mean_of_outcomes_is_the_value(metric: Metric) -> None:
    """Where ``outcome`` names what pairs two systems, its mean over the examples is the value."""
    if metric.column.outcome is None:
        return
    for name, system in _cases().items():
        outcomes = system.outcomes(metric)
        require(metric.column.outcome in outcomes.examples, f"nothing fills its outcome '{metric.column.outcome}'")
        mean = float(outcomes.examples[metric.column.outcome].to_numpy(np.float64).mean())
        value = _value(metric.score(outcomes))
        words = f"a system that {name} has {value}, and its outcomes the mean {mean}"
        require(value is None or _equal(value, mean), words)


@law("metric")
def same_predictions_same_value(metric: Metric) -> None:
    """Scored twice, a system has the same value and interval, whatever the state of global generators."""
    for name, system in _cases().items():
        found = []
        for seed in (1, 2):
            np.random.seed(seed)
            torch.manual_seed(seed)
            found.append(_text(metric.score(system.outcomes(metric))))
        require(found[0] == found[1], f"a system that {name} has {found[0]}, and the second time {found[1]}")


@law("metric")
def what_it_was_given_is_unchanged(metric: Metric) -> None:
    """Scoring leaves predictions, labels and tables of examples as they were."""
    for name, system in _cases().items():
        if metric.per_example is not None:
            log_probs, labels = system.log_probs.copy(), system.labels.copy()
            metric.per_example(log_probs, labels)
            same = np.array_equal(log_probs, system.log_probs) and np.array_equal(labels, system.labels)
            require(same, f"the predictions of a system that {name} have changed")
        before, outcomes = system.outcomes(metric), system.outcomes(metric)
        metric.score(outcomes)
        if metric.over_seeds is not None:
            metric.over_seeds([outcomes, outcomes])
        same = outcomes.examples.equals(before.examples) and np.array_equal(outcomes.labels, before.labels)
        require(same, f"the examples of a system that {name} have changed")


def _over_seeds(metric: Metric, systems: list[Predictions]) -> Interval | float | None:
    return metric.over_seeds([each.outcomes(metric) for each in systems]) if metric.over_seeds else None


def _equal(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=ROUNDING, abs_tol=ROUNDING)


def _text(found: Interval | float | None) -> str:
    """What can be compared although bounds may be NaN."""
    return json.dumps([found.value, found.low, found.high, found.n] if isinstance(found, Interval) else found)
