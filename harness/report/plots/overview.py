"""All variants at once: accuracy against cost, and confidence against accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from harness.evaluate.calibration import reliability_bins
from harness.report.evidence import Evidence, best
from harness.report.plots.style import FAMILIES

PARETO = (
    "Accuracy on test against FLOPs per example, with 95 % intervals over seeds and examples. The line joins the "
    "variants that no other beats on both."
)


def pareto(evidence: Evidence) -> Figure | None:
    """Accuracy against FLOPs; variants far below the rest are named in the margin, not drawn."""
    rows = evidence.ok
    if rows.empty:
        return None
    floor = _floor(rows["accuracy"].to_numpy())
    shown, hidden = rows[rows["accuracy"] >= floor], rows[rows["accuracy"] < floor]
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for family, (colour, marker) in FAMILIES.items():
        group = shown[shown["family"] == family]
        if group.empty:
            continue
        x, y = group["flops_per_example"].to_numpy(), 100 * group["accuracy"].to_numpy()
        bars = np.abs(100 * group[["accuracy_low", "accuracy_high"]].to_numpy().T - y)
        axes.errorbar(x, y, yerr=bars, fmt="none", ecolor=colour, alpha=0.25, linewidth=1)
        axes.scatter(x, y, c=colour, marker=marker, s=26, label=family, linewidths=0, alpha=0.85, zorder=3)
    front = shown[shown["pareto"].astype(bool)].sort_values("flops_per_example")
    axes.plot(front["flops_per_example"], 100 * front["accuracy"], color="#333333", linewidth=1, zorder=2)
    last = -np.inf
    for row in front.to_dict("records"):
        y = 100 * row["accuracy"]
        lift = 12 if y - last > 0.4 else 26
        last = y
        axes.annotate(
            row["variant"], (row["flops_per_example"], y), xytext=(0, lift), textcoords="offset points",
            ha="center", fontsize=8, arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6},
        )  # fmt: skip
    if (reference := evidence.reference) and reference["accuracy"] >= floor:
        axes.axhline(100 * reference["accuracy"], color="#999999", linewidth=0.8, linestyle="--", zorder=1)
        label = f"reference: {reference['variant']}"
        axes.annotate(label, (1, 100 * reference["accuracy"]), xycoords=("axes fraction", "data"), xytext=(-2, -10),
                      textcoords="offset points", ha="right", fontsize=8, color="#666666")  # fmt: skip
    axes.set(xscale="log", xlabel="FLOPs per example", ylabel="accuracy, %")
    axes.margins(x=0.12, y=0.16)
    if len(hidden):
        names = [f"{r['variant']} {100 * r['accuracy']:.1f} %" for r in hidden.to_dict("records")]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        axes.set_title(f"not drawn, far below: {', '.join(names[:3])}{more}", fontsize=8, color="#666666")
    axes.legend(loc="lower right", ncols=len(FAMILIES))
    return figure


def _floor(accuracy: np.ndarray) -> float:
    """Below this a variant has collapsed, and drawing it would flatten all others into one line."""
    middle, top = np.median(accuracy), accuracy.max()
    return float(middle - 4 * max(top - middle, 0.01))


RELIABILITY = (
    "Accuracy against confidence in 15 equal bins, all seeds together; bins with fewer than 20 examples are left out."
)


def reliability(evidence: Evidence) -> Figure | None:
    """Reliability of the reference, the best output-space, weight-space and trained variant."""
    chosen = [evidence.reference] + [
        best(evidence.ok[(evidence.ok["family"] == family) & (evidence.ok["pool"] == "main")])
        for family in ("output", "weights", "trained")
    ]
    names = list(dict.fromkeys(row["variant"] for row in chosen if row))
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
