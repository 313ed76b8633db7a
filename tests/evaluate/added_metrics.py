"""Two metrics as a plug-in would declare them: one with an interval, one with an outcome of its own."""

import numpy as np
from sklearn.metrics import matthews_corrcoef

from harness import stats
from harness.evaluate.outcomes import stacked
from harness.registry import METRICS
from harness.results.metric import Column, Outcomes, metric
from harness.stats.interval import Interval, percentile_interval

MCC = Column("mcc", "Matthews' correlation", better="higher", least=-1.0, most=1.0, interval="mcc")
TOP2 = Column(
    "top2", "share of labels among the two likeliest", better="higher", most=1.0, interval="top2", outcome="in_top2"
)


def mcc(outcomes: Outcomes) -> Interval:
    """Its interval by 50 draws of examples."""
    prediction, count = outcomes.examples["prediction"].to_numpy(), len(outcomes.examples)
    rows = np.random.default_rng(0).integers(count, size=(50, count))
    draws = np.array([matthews_corrcoef(outcomes.labels[row], prediction[row]) for row in rows])
    return percentile_interval(float(matthews_corrcoef(outcomes.labels, prediction)), draws, count)


def in_top2(log_probs, labels):
    """Whether at most one class is likelier than the label, [N] bool."""
    return (log_probs > log_probs[np.arange(len(labels)), labels][:, None]).sum(axis=1) < 2


def top2(outcomes: Outcomes) -> Interval:
    """With Wilson's interval."""
    values = outcomes.examples["in_top2"]
    return stats.wilson(int(values.sum()), len(values))


def top2_over_seeds(seeds) -> Interval:
    """Both seeds and examples taken as samples."""
    return stats.proportion_over_seeds(stacked(seeds, "in_top2"))


def declare(monkeypatch, *names):
    """Register metrics for the length of a test."""
    monkeypatch.setattr(METRICS, "_known", METRICS.all())
    if "mcc" in names:
        metric(MCC)(mcc)
    if "top2" in names:
        metric(TOP2, over_seeds=top2_over_seeds, per_example=in_top2)(top2)
