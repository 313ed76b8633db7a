"""The ensemble-versus-average study: do the two go together, and how far apart do members lie?"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.report.answer import correlation_words
from harness.report.evidence import Evidence
from harness.report.plots.style import SEED_COLOURS

CORRELATION = (
    "One mark per subset of members: its ensemble's score against that of the average of its weights. On the dashed "
    "line both are equal. Coefficients are over all seeds, each seed centred, with intervals from leaving out each "
    "member in turn."
)


def correlation(evidence: Evidence) -> Figure | None:
    """Ensemble against average: one row per metric, one column per pool."""
    study = evidence.run.subsets
    if study is None or study.empty:
        return None
    pools = sorted(set(study["pool"]), key=lambda name: (name != "main", name))
    metrics = [m for m in ("nll", "accuracy") if m in set(study["metric"])]
    figure = Figure(figsize=(4.4 * len(pools), 4 * len(metrics)), layout="constrained")
    grid = figure.subplots(len(metrics), len(pools), squeeze=False)
    for row, metric in zip(grid, metrics, strict=True):
        for axes, pool in zip(row, pools, strict=True):
            rows = study[(study["pool"] == pool) & (study["metric"] == metric)]
            _scatter(axes, rows, metric)
            name = "NLL" if metric == "nll" else metric
            axes.set_title(f"{pool}: {name}\n{_coefficients(evidence, pool, metric)}", fontsize=8)
    grid[0][0].legend(loc="lower right", title="seed", fontsize=8, title_fontsize=8)
    return figure


def _scatter(axes: Axes, rows: pd.DataFrame, metric: str) -> None:
    scale = 100.0 if metric == "accuracy" else 1.0
    for index, (seed, group) in enumerate(rows.groupby("seed", sort=True)):
        colour = SEED_COLOURS[index % len(SEED_COLOURS)]
        for size, marks in group.groupby("size"):  # marks of one size are drawn once in an SVG and used many times
            x, y = scale * marks["average"], scale * marks["ensemble"]
            axes.scatter(x, y, s=8 + 6 * size, color=colour, alpha=0.6, linewidths=0)
        axes.scatter([], [], s=30, color=colour, alpha=0.6, linewidths=0, label=seed)
    across, up = axes.get_xlim(), axes.get_ylim()
    axes.axline((up[0], up[0]), slope=1, color="#999999", linewidth=0.8, linestyle="--", zorder=1)
    axes.set(xlabel="average of weights", ylabel="ensemble", xlim=across, ylim=up)  # where averages collapse, no line
    axes.locator_params(axis="x", nbins=5)  # small differences have long numbers


def _coefficients(evidence: Evidence, pool: str, metric: str) -> str:
    for found in evidence.run.correlations:
        if (found["pool"], found["metric"], found["seed"]) == (pool, metric, "all"):
            pearson, spearman, kendall = (correlation_words(found[k]) for k in ("pearson", "spearman", "kendall"))
            counts = f"n = {found['n']} subsets of {found['members']} members"
            words = f"Pearson {pearson}\nSpearman {spearman}\nKendall {kendall}; {counts}"
            return words + _barrier(evidence, pool, metric)
    return ""


def _barrier(evidence: Evidence, pool: str, metric: str) -> str:
    """How often an average is worse than its mean member: never in one basin, nearly always between two."""
    study = evidence.run.subsets
    if study is None or metric != "nll":
        return ""
    rows = study[(study["pool"] == pool) & (study["metric"] == metric)].dropna()
    worse = (rows["average"] > rows["members"]).mean()
    return f"\nthe average is worse than its mean member in {100 * worse:.0f} % of subsets"
