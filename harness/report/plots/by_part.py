"""Scores by domain of text and by view of images, and weights that were swept between two of them."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.report.evidence import Evidence
from harness.report.parts import VIEWS as PART_VIEWS
from harness.report.parts import parts_of
from harness.report.plots.style import SEED_COLOURS

DOMAINS = (
    "Bits per byte of test text by domain, minus the reference's: blue is better. Rows are sorted by their mean over "
    "the domains, so a generalist is high up and a specialist has a blue and a red end."
)


def domains(evidence: Evidence) -> Figure | None:
    """Every variant of the main pool against every task that gives bits per byte."""
    bits = _by_part(evidence, "main", "bits_per_byte/")
    reference = evidence.run.record["reference"]["variant"]
    if bits.empty or reference not in bits.index:
        return None
    shown = bits.rename(columns=lambda c: c.split("/bytes_")[-1])
    return _heat_map(shown, reference, f"bits per byte − {reference}", better=-1, digits=2)


VIEWS = (
    "Accuracy on test by view of its images, minus that of the base, which no member was added to: blue is better, in "
    "points. Rows are sorted by the mean over the views, the score of one model for all of them."
)


def views(evidence: Evidence) -> Figure | None:
    """Every variant of the first pool whose members conflict against every view that one was trained on."""
    for parts in parts_of(evidence.run):
        accuracy = _by_part(evidence, parts.pool, parts.kind.prefix) if parts.kind is PART_VIEWS else pd.DataFrame()
        if parts.base in accuracy.index:
            shown = 100 * accuracy.rename(columns=lambda c: c.removeprefix("accuracy/"))
            shown = shown.assign(mean=shown.mean(axis=1))
            return _heat_map(shown, parts.base, "accuracy − the base's, points", better=1, digits=1)
    return None


def _by_part(evidence: Evidence, pool: str, prefix: str) -> pd.DataFrame:
    """The scores of a pool's variants by part of the task; empty without any."""
    table = evidence.run.measures
    rows = [name for name in evidence.ok[evidence.ok["pool"] == pool]["variant"] if name in table.index]
    return table.loc[rows, [c for c in table.columns if c.startswith(prefix)]].dropna()


def _heat_map(scores: pd.DataFrame, reference: str, label: str, *, better: int, digits: int) -> Figure:
    """Scores of variants (rows) by part (columns), coloured by their difference from one of the variants'."""
    scores = scores.loc[(-better * scores.mean(axis=1)).sort_values().index]
    gains = scores - scores.loc[reference]
    figure = Figure(figsize=(7.5, 1.4 + 0.19 * len(gains)), layout="constrained")
    axes = figure.add_subplot()
    extent = float(np.quantile(np.abs(gains.to_numpy()), 0.95)) or 1.0
    colours = "RdBu" if better > 0 else "RdBu_r"
    image = axes.imshow(gains, cmap=colours, vmin=-extent, vmax=extent, aspect="auto")
    for (row, column), gain in np.ndenumerate(gains.to_numpy()):
        colour = "white" if abs(gain) > 0.6 * extent else "#333333"
        text = f"{scores.iloc[row, column]:.{digits}f} ({gain:+.{digits}f})".replace("-", "−")
        axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=colour)
    axes.set_xticks(range(len(scores.columns)), list(scores.columns))
    axes.set_yticks(range(len(gains)), list(gains.index), fontsize=6.5)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.grid(visible=False)
    figure.colorbar(image, shrink=0.4, label=label)
    return figure


WEIGHTS = "Two members mixed at given weights: bits per byte of each domain against the weight of the second member."


def weights(evidence: Evidence) -> Figure | None:
    """Interpolation weights against domain, one panel for each rule and pair of members."""
    table = evidence.run.measures
    columns = [c for c in table.columns if c.startswith("bits_per_byte/")]
    panels: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for row in evidence.ok.to_dict("records"):
        given = json.loads(row["params"]).get("weights")
        match = re.search(r"members=([0-9+]+)", row["variant"])
        if isinstance(given, list) and len(given) == 2 and match and row["variant"] in table.index:
            panels.setdefault((row["method"], match[1]), []).append((given[1], row["variant"]))
    drawn = {key: sorted(points) for key, points in panels.items() if len(points) >= 3}
    if not drawn or not columns:
        return None
    figure = Figure(figsize=(4.4 * len(drawn), 3.4), layout="constrained")
    for axes, ((method, pair), points) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn.items(),
                                              strict=True):  # fmt: skip
        for column, colour in zip(columns, SEED_COLOURS, strict=False):
            y = [table.loc[name, column] for _, name in points]
            axes.plot([weight for weight, _ in points], y, marker="o", markersize=4, color=colour,
                      label=column.split("/bytes_")[-1])  # fmt: skip
        first, second = pair.split("+")
        axes.set(xlabel=f"weight of member {second} (the rest is member {first}'s)", ylabel="bits per byte")
        axes.set_title(method)
        axes.legend(fontsize=8)
    return figure
