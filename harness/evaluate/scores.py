"""From predictions to the scores of one variant: aggregates with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch

from harness import stats
from harness.evaluate.calibration import expected_calibration_error
from harness.evaluate.outcomes import aligned, clusters_of, differ, per_example, stacked
from harness.registry import METRICS
from harness.results.metric import Metric, Outcomes, Value
from harness.says import Says, least_said, says_enough
from harness.stats.interval import Interval, percentile_interval
from harness.stats.simultaneous import by_cluster
from harness.systems.fitting import fit_temperature
from harness.systems.rules import temper
from harness.tasks.answers import Aggregate


class NonFinite(ValueError):
    """A score or an outcome that is NaN, or infinite although no label was given probability 0: the variant failed."""


def makers() -> tuple[str, ...]:
    """The code behind a variant's scores: this module, and those of all metrics."""
    return (__name__, *sorted({metric.module for metric in METRICS}))


def score(outcomes: Outcomes) -> dict[str, Any]:
    """Every metric of one variant on one seed: ``n``, and the columns that the metrics declare.

    A column is empty where the metric does not apply, where it needs more than is known of the answers, and where
    labels that were given probability 0 make it infinite.
    """
    return _scored([outcomes], lambda metric: metric.score(outcomes))


def score_over_seeds(seeds: Sequence[Outcomes]) -> dict[str, Any]:
    """Every metric of one variant over its seeds, as ``score``; ``n`` is of all examples of any seed."""
    return _scored(seeds, lambda metric: metric.over_seeds(seeds) if metric.over_seeds else _mean(metric, seeds))


def _scored(seeds: Sequence[Outcomes], value: Callable[[Metric], Value]) -> dict[str, Any]:
    found: dict[str, Any] = {"n": stacked(seeds, "correct").shape[1]}
    says = least_said(each.says for each in seeds)
    infinite = any(excluded(each.examples).any() for each in seeds)
    for metric in METRICS:
        if not says_enough(says, metric.reads) or any(_is_infinite(metric, each) for each in seeds):
            found |= dict.fromkeys((metric.name, *metric.column.bounds))
            continue
        given = partial(_clustered, metric, seeds) if _by_cluster(metric, seeds[0]) else partial(value, metric)
        found |= _cells(metric, given, infinite=infinite)
    return found


def excluded(examples: pd.DataFrame) -> np.ndarray:
    """Which labels were given probability 0, [N] of a table of ``outcomes.tabulate``: their NLL is infinite."""
    lost: np.ndarray = np.isposinf(examples["nll"].to_numpy(np.float64))
    return lost


def _is_infinite(metric: Metric, outcomes: Outcomes) -> bool:
    """Whether a metric is a mean of something that labels with probability 0 make infinite."""
    column = metric.column.outcome
    return column in outcomes.examples and bool(np.isinf(outcomes.examples[column].to_numpy(np.float64)).any())


def _by_cluster(metric: Metric, outcomes: Outcomes) -> bool:
    """Whether a metric is a mean over examples of which several count as one."""
    return metric.column.outcome is not None and bool(metric.column.bounds) and len(outcomes.clusters) > 0


def _clustered(metric: Metric, seeds: Sequence[Outcomes]) -> Interval:
    """The mean of an outcome, its interval by cluster: examples of one are no independent evidence."""
    clusters = clusters_of([each.clusters for each in seeds], [each.ids for each in seeds])
    together = by_cluster(stacked(seeds, str(metric.column.outcome)), clusters)
    return stats.over_seeds(together).within(metric.column.least, metric.column.most)


def _mean(metric: Metric, seeds: Sequence[Outcomes]) -> Value:
    """The mean over the seeds; of one seed its score, with its interval."""
    values = [metric.score(each) for each in seeds]
    if len(values) == 1:
        return values[0]
    known = [value.value if isinstance(value, Interval) else value for value in values]
    numbers = [value for value in known if value is not None]
    return sum(numbers) / len(numbers) if len(numbers) == len(known) else None


def _cells(metric: Metric, score: Callable[[], Value], *, infinite: bool) -> dict[str, float | None]:
    """A metric's value as the cells of its column and its bounds; what is not known is None.

    Args:
        metric: which.
        score: computes it.
        infinite: whether some losses are, so that what is computed from them need not be finite, and is not known.

    Raises:
        NonFinite: for a value that is not finite.
        RuntimeError: for a metric that fails, or that gives an interval and declares none; it says which.
    """
    name, bounds = metric.name, metric.column.bounds
    try:
        value = score()
    except Exception as error:
        raise RuntimeError(f"metric '{name}' failed: {type(error).__name__}: {error}") from error
    ends: list[float | None] = [None] * len(bounds)
    if isinstance(value, Interval):
        if not bounds:
            raise RuntimeError(f"metric '{name}' gives an interval, and its column declares none")
        ends = [float(end) if math.isfinite(end) else None for end in (value.low, value.high)]
        value = value.value
    if value is not None and not math.isfinite(value):
        if not infinite:
            raise NonFinite(f"{name} is {value}")
        return dict.fromkeys((name, *bounds))
    return {name: None if value is None else float(value), **dict(zip(bounds, ends, strict=True))}


def calibrated(
    log_probs: torch.Tensor, labels: torch.Tensor, heldout: torch.Tensor, heldout_labels: torch.Tensor
) -> dict[str, float | None]:
    """NLL and ECE on test after one temperature fitted on held-out: what is left once confidence is recalibrated.

    No temperature changes a probability of 0: an NLL that is infinite stays so, and is None.
    """
    temperature = fit_temperature(heldout, heldout_labels)
    examples = per_example(temper(log_probs.double(), temperature).numpy(), labels.numpy())
    ece = expected_calibration_error(examples["confidence"].to_numpy(), examples["correct"].to_numpy())
    nll = None if excluded(examples).any() else float(examples["nll"].mean())
    return {"temperature": temperature, "nll_calibrated": nll, "ece_calibrated": ece}


def score_measures(
    seeds: Sequence[Mapping[str, np.ndarray]],
    ids: Sequence[Sequence[str]] = (),
    clusters: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> dict[str, dict[str, float | None]]:
    """Mean of every per-document measure over documents and seeds, with its interval, by name; NaN is no value.

    One that is infinite anywhere, such as the bits of a text that was given probability 0, has no mean and is left out.

    Args:
        seeds: the measures of each seed, by name.
        ids: the documents of each seed, where these may differ: every measure is then of all of a seed's.
        clusters: by measure, those of its documents.
    """
    found = {}
    for name in seeds[0]:
        values = aligned([measures[name] for measures in seeds], ids)
        if np.isinf(values).any():
            continue
        if of_name := clusters.get(name):
            values = by_cluster(values, of_name)
        lacking = np.isnan(values)
        if differ(ids):
            lacking &= ~np.isnan(aligned([np.ones(len(documents)) for documents in ids], ids))
        values = values[:, ~lacking.any(axis=0)]
        values = values[~np.isnan(values).all(axis=1)]  # a seed with none of its documents has no mean
        if not values.size:  # a task may have a metric of some documents only, and --limit none of these
            continue
        outcomes = np.isin(values[~np.isnan(values)], (0, 1)).all()
        found[name] = _plain(stats.proportion_over_seeds(values) if outcomes else stats.over_seeds(values))
    return found


def score_aggregates(
    seeds: Sequence[Mapping[str, Aggregate]], ids: Sequence[Sequence[str]] = ()
) -> dict[str, dict[str, float | None]]:
    """Scores of whole tasks, the mean over the seeds, with intervals from their draws, by name.

    One that some seed does not have, where it was infinite, is left out.

    Args:
        seeds: the scores of each seed, by name.
        ids: the documents of each seed, where these may differ: draws of other documents are not paired, and give no
            interval.
    """
    found = {}
    for name, first in seeds[0].items():
        if any(name not in each for each in seeds):
            continue
        if len(seeds) == 1:
            found[name] = _plain(percentile_interval(first.value, first.draws, first.n))
            continue
        values = np.array([each[name].value for each in seeds])
        draws = np.stack([each[name].draws for each in seeds], axis=1)
        known = np.isfinite(draws).all() and first.n > 1 and not differ(ids)
        interval = stats.crossed_statistic(values, draws, first.n).interval() if known else None
        found[name] = _plain(interval or Interval(float(values.mean()), np.nan, np.nan, first.n))
    return found


def _plain(interval: Interval) -> dict[str, float | None]:
    """JSON values: NaN bounds are null."""
    low, high = (end if np.isfinite(end) else None for end in (interval.low, interval.high))
    return {"value": interval.value, "low": low, "high": high, "n": interval.n}


def check_numbers(values: Mapping[str, float]) -> list[str]:
    """The names of lm-eval's scores of tasks that are infinite; ``NonFinite`` where one is NaN."""
    if lost := [name for name, value in values.items() if np.isnan(value)]:
        raise NonFinite(f"lm-eval's {lost[0]} is {values[lost[0]]}")
    return sorted(name for name, value in values.items() if np.isinf(value))


def check_finite(examples: pd.DataFrame, says: Says = "probabilities") -> None:
    """Raise ``NonFinite`` where an outcome of a table of ``outcomes.tabulate`` is wrong: NaN, or infinite.

    A label that was given probability 0 has an infinite NLL, and may have other infinite losses: these are right. Of
    answers without probabilities what needs these is not known, and no fault.
    """
    if says != "probabilities":
        return
    zero = excluded(examples)
    for column in examples:
        values = examples[column].to_numpy(np.float64)
        if lost := int((~np.isfinite(values) & ~(np.isinf(values) & zero)).sum()):
            raise NonFinite(f"{column} is not finite on {lost} of {len(examples)} test examples")
