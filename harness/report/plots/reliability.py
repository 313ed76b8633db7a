"""Whether confidence is deserved: accuracy against it."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from harness.evaluate.calibration import reliability_bins
from harness.report.evidence import Evidence
from harness.report.plots.style import FAMILIES

RELIABILITY = (
    "Accuracy against confidence in 15 equal bins, all seeds together; bins with fewer than 20 examples are left out."
)


def reliability(evidence: Evidence) -> Figure | None:
    """Reliability of the reference, the best output-space, weight-space and trained variant that have confidences."""
    chosen = [evidence.reference] + [
        evidence.best(evidence.ok[(evidence.ok["family"] == family) & (evidence.ok["pool"] == evidence.main)])
        for family in ("output", "weights", "trained")
    ]
    names = list(dict.fromkeys(row["variant"] for row in chosen if row and not np.isnan(row["ece"])))
    if not names or not evidence.has(*names):
        return None
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle="--")
    for name in names:
        colour, marker = FAMILIES[evidence.by_name[name]["family"]]
        right = evidence.correct(name)
        tested = ~np.isnan(right)
        bins = reliability_bins(evidence.values(name, "confidence")[tested], right[tested])
        bins = bins[bins["count"] >= 20]
        label = f"{name} (ECE {evidence.by_name[name]['ece']:.3f})"
        style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.2}
        axes.plot(bins["confidence"], bins["accuracy"], label=label, **style)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend(loc="upper left", fontsize=8)
    return figure
