"""The laws of metrics: ours keep them, and a metric that breaks one is caught by it."""

from dataclasses import replace

import numpy as np
import pytest

from harness.checks import BrokenLaw, check_metric, laws
from harness.registry import METRICS
from harness.results.metric import Column, Metric
from harness.stats.interval import Interval

LAWS = {law.__name__: law for law in laws("metric")}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("name", METRICS.all())
def test_metric(name, law):
    law(METRICS.get(name))


COLUMN = Column("planted", "share that is right", better="higher", most=1.0, interval="planted", outcome="correct")


def share(outcomes):
    value = float(outcomes.examples["correct"].mean())
    return Interval(value, max(0.0, value - 0.1), min(1.0, value + 0.1), len(outcomes.examples))


def over_seeds(seeds):
    found = [share(each) for each in seeds]
    return Interval(*(float(np.mean([getattr(one, name) for one in found])) for name in ("value", "low", "high")), 1)


def right(log_probs, labels):
    return log_probs.argmax(axis=1) == labels


RIGHT = Metric(COLUMN, share, over_seeds, None, __name__)
OWN = replace(RIGHT, column=replace(COLUMN, outcome="right"), per_example=right)


def plain(function):
    """Without an interval or an outcome."""
    return Metric(replace(COLUMN, interval=None, outcome=None), function, None, None, __name__)


def mutates(outcomes):
    found = share(outcomes)
    outcomes.examples["correct"] = 0.0
    return found


def mutates_predictions(log_probs, labels):
    found = right(log_probs, labels)
    log_probs[0] = 0.0
    return found


def entropy(log_probs, labels):
    """NaN where a class has no probability."""
    with np.errstate(invalid="ignore"):
        return -(np.exp(log_probs) * log_probs).sum(axis=1)


ENTROPY = Metric(
    Column("planted", "mean entropy of predictions", unit="nats", outcome="entropy"),
    lambda outcomes: float(outcomes.examples["entropy"].mean()),
    None,
    entropy,
    __name__,
)

WRONG = [
    (replace(RIGHT, column=replace(COLUMN, meaning="share")), "its_column_says_what_it_is"),
    (replace(RIGHT, column=replace(COLUMN, source="nowhere_source")), "its_column_says_what_it_is"),
    (plain(lambda outcomes: 2 * share(outcomes).value), "values_are_finite_and_within_range"),
    (ENTROPY, "values_are_finite_and_within_range"),
    (plain(lambda outcomes: np.nan), "values_are_finite_and_within_range"),
    (plain(lambda outcomes: None), "it_applies_to_some_task"),
    (replace(RIGHT, column=replace(COLUMN, better="lower")), "what_is_better_has_the_better_value"),
    (plain(lambda outcomes: 0.5), "what_is_better_has_the_better_value"),
    (plain(lambda outcomes: float(outcomes.examples["confidence"].iloc[0])), "order_of_examples_is_irrelevant"),
    (replace(RIGHT, score=lambda outcomes: replace(share(outcomes), low=1.0)), "intervals_hold_their_value"),
    (replace(RIGHT, score=lambda outcomes: replace(share(outcomes), high=1.1)), "intervals_hold_their_value"),
    (replace(RIGHT, over_seeds=lambda seeds: replace(share(seeds[0]), low=1.0)), "intervals_hold_their_value"),
    (plain(share), "intervals_are_declared"),
    (replace(RIGHT, over_seeds=lambda seeds: Interval(0.5, 0.0, 1.0, 1)), "equal_seeds_have_the_value_of_one"),
    (replace(RIGHT, over_seeds=lambda seeds: share(seeds[0]) if len(seeds) > 2 else None),
     "seeds_with_other_examples_have_their_mean"),
    (replace(RIGHT, column=replace(COLUMN, outcome="confidence")), "the_mean_of_outcomes_is_the_value"),
    (replace(RIGHT, column=replace(COLUMN, outcome="nowhere")), "the_mean_of_outcomes_is_the_value"),
    (plain(lambda outcomes: share(outcomes).value * np.random.rand()), "same_predictions_same_value"),
    (replace(RIGHT, score=mutates), "what_it_was_given_is_unchanged"),
    (replace(OWN, per_example=mutates_predictions), "what_it_was_given_is_unchanged"),
]


@pytest.mark.parametrize(("metric", "law"), WRONG, ids=[f"{i}-{law}" for i, (_, law) in enumerate(WRONG)])
def test_a_wrong_metric_is_caught(metric, law, monkeypatch):
    with pytest.raises(BrokenLaw, match="metric 'planted'") as caught:
        LAWS[law](metric)
    assert caught.value.law == law
    assert type(caught.value.__cause__) is AssertionError
    monkeypatch.setattr(METRICS, "_known", {**METRICS.all(), "planted": metric})
    with pytest.raises(BrokenLaw):
        check_metric("planted")


@pytest.mark.parametrize(
    "gives", [lambda log_probs, labels: log_probs, lambda log_probs, labels: np.array(["right"] * len(labels))]
)
def test_outcomes_of_another_shape_or_of_no_numbers_are_caught(gives):
    with pytest.raises(BrokenLaw, match=r"expected .* numbers"):
        LAWS["values_are_finite_and_within_range"](replace(OWN, per_example=gives))


def test_every_law_of_metrics_catches_something():
    assert {law for _, law in WRONG} == set(LAWS)


@pytest.mark.parametrize("metric", [RIGHT, OWN, plain(lambda outcomes: share(outcomes).value)])
def test_a_right_metric_passes(metric):
    for law in LAWS.values():
        law(metric)
