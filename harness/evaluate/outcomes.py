"""The outcomes of one system on every example of a split: what its scores are means or functions of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from harness.registry import METRICS
from harness.results.metric import Metric, Outcomes
from harness.says import Says

NORMALISATION_TOLERANCE = 1e-4
"""How far a row's log-sum-exp may be from 0: float32 rounding, but no unnormalised logits."""


def makers() -> tuple[str, ...]:
    """The code behind a table of outcomes: this module, and those of metrics with an outcome of their own."""
    return (__name__, *(metric.module for metric in METRICS if metric.per_example))


def own_outcomes() -> dict[str, Metric]:
    """The metrics that add an outcome of their own, by its column."""
    return {str(metric.column.outcome): metric for metric in METRICS if metric.per_example}


def tabulate(
    log_probs: np.ndarray,
    labels: np.ndarray,
    added: Mapping[str, Metric] | None = None,
    says: Says = "probabilities",
) -> pd.DataFrame:
    """``per_example``, and a column for each outcome that a metric adds: float64, or bool where it gives that.

    Args:
        log_probs: as ``per_example``.
        labels: as ``per_example``.
        added: the metrics that add one, by its column; all that are registered by default.
        says: what is known of the answers: of less than probabilities, all outcomes but the most probable class, and
            whether it is right, are NaN.

    Raises:
        ValueError: as ``per_example``; for an outcome that is not one number for each example.
    """
    table = per_example(log_probs, labels)
    added = own_outcomes() if added is None else added
    if says != "probabilities":
        unknown = [name for name in table if name not in ("prediction", "correct")]
        return table.assign(**dict.fromkeys((*unknown, *added), np.nan))
    if not added:
        return table
    normalised = _normalised(log_probs)
    normalised.flags.writeable = False  # what one metric does to it would be another's input
    for column, metric in added.items():
        assert metric.per_example is not None
        values = np.asarray(metric.per_example(normalised, labels))
        if values.shape != (len(table),) or values.dtype.kind not in "biuf":
            given = f"{values.dtype} {values.shape}"
            raise ValueError(f"metric '{metric.name}' gives outcomes {given}, expected {len(table)} numbers")
        table[column] = values if values.dtype == bool else values.astype(np.float64)
    return table


def stacked(seeds: Sequence[Outcomes], column: str) -> np.ndarray:
    """A column's values [seeds, examples], float64: all examples of any seed; NaN where a seed was not scored on one.

    The mean over the seeds is that of each seed's mean.
    """
    return aligned([each.examples[column].to_numpy(np.float64) for each in seeds], [each.ids for each in seeds])


def aligned(values: Sequence[np.ndarray], ids: Sequence[Sequence[str]]) -> np.ndarray:
    """Values of each seed's own examples as one table [seeds, examples], float64; NaN where a seed lacks an example.

    Args:
        values: [N] for each seed.
        ids: [N] for each seed, the examples; where all seeds have the same, or none are given, these stay in order.

    Raises:
        ValueError: for values that are not one for each example.
    """
    if not differ(ids):
        return np.stack(values).astype(np.float64)
    places = positions(ids)
    table = np.full((len(ids), 1 + max(map(np.max, places))), np.nan)
    for row, of_seed, at in zip(table, values, places, strict=True):
        if len(of_seed) != len(at):
            raise ValueError(f"{len(of_seed)} values of {len(at)} examples")
        row[at] = of_seed
    return table


def positions(ids: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """Where each seed's examples are among those of all seeds: as they are where all have the same, else sorted."""
    if not differ(ids):
        return [np.arange(len(of_seed)) for of_seed in ids]
    place = {name: position for position, name in enumerate(sorted(set().union(*ids)))}
    return [np.array([place[name] for name in of_seed]) for of_seed in ids]


def clusters_of(clusters: Sequence[Sequence[str]], ids: Sequence[Sequence[str]]) -> list[str]:
    """The cluster of each example of ``aligned``, from those of each seed's examples; empty where there are none."""
    if not clusters or not len(clusters[0]) or not differ(ids):
        return list(clusters[0]) if clusters else []
    found: dict[int, str] = {}
    for of_seed, at in zip(clusters, positions(ids), strict=True):
        found |= dict(zip(at.tolist(), of_seed, strict=True))
    return [found[position] for position in range(len(found))]


def differ(ids: Sequence[Sequence[str]]) -> bool:
    """Whether seeds have other examples each."""
    return any(list(of_seed) != list(ids[0]) for of_seed in ids[1:])


def per_example(log_probs: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """One row for each example, in the order given; every aggregate score is a mean or a function of these columns.

    Args:
        log_probs: [N, C] normalised log-probabilities in nats; ``-inf`` is a probability of zero.
        labels: [N] integers in 0..C-1.

    Returns:
        ``prediction`` (the first of equally likely classes), ``confidence`` (the prediction's probability),
        ``correct``, ``nll`` (nats; ``inf`` where the label was given no probability) and ``brier`` (the sum over all
        classes, 0..2, unhalved: Brier 1950). Float64, after the rounding left in each row's sum is divided out.

    Raises:
        ValueError: for NaN, ``+inf``, rows that are not normalised, shapes or labels that do not fit.
    """
    log_probs, labels = _normalised(log_probs), np.asarray(labels)
    count, classes = log_probs.shape
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are {labels.dtype} {labels.shape}, expected integers ({count},)")
    if count and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(f"labels lie in {labels.min()}..{labels.max()}, expected 0..{classes - 1}")
    rows = np.arange(count)
    probs = np.exp(log_probs)
    prediction = log_probs.argmax(axis=1)
    missed = probs.copy()
    missed[rows, labels] -= 1.0
    return pd.DataFrame(
        {
            "prediction": prediction.astype(np.int64),
            "confidence": np.minimum(probs[rows, prediction], 1.0),
            "correct": prediction == labels,
            "nll": np.maximum(0.0, -log_probs[rows, labels]),
            "brier": np.square(missed).sum(axis=1),
        }
    )


def _normalised(log_probs: np.ndarray) -> np.ndarray:
    log_probs = np.asarray(log_probs, np.float64)
    if log_probs.ndim != 2:
        raise ValueError(f"log_probs have shape {log_probs.shape}, expected [N, C]")
    bad = np.isnan(log_probs) | (log_probs == np.inf)
    if bad.any():
        raise ValueError(f"log_probs hold NaN or +inf in {int(bad.any(axis=1).sum())} of {len(log_probs)} rows")
    with np.errstate(over="ignore", divide="ignore"):
        totals = np.log(np.exp(log_probs).sum(axis=1, keepdims=True))  # [N, 1]
    worst = float(np.abs(totals).max(initial=0.0))
    if worst > NORMALISATION_TOLERANCE:
        raise ValueError(f"log_probs are not normalised: log-sum-exp is off by up to {worst:.3g}")
    return log_probs - totals
