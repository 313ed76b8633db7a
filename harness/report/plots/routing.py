"""Routing: which experts run for which class, or task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from harness.report.evidence import Evidence
from harness.report.experts import Use, uses_of

ROUTING = (
    "Which experts run for which class or task, on test: the share of its rows (of a text: tokens) that each expert "
    "runs for. Columns that are alike have learned nothing of the groups; a dark column is an expert that does most of "
    "the work."
)
SHOWN, LAYERS = 4, 4
"""Mixtures and layers that are drawn, at most; of more layers those spread evenly from the first to the last."""
CELLS = 60
"""Shares are written into as many cells of a panel, at most."""


def routing(evidence: Evidence) -> Figure | None:
    """A panel for each mixture of which not all experts run, with the first seed."""
    chosen = {name: uses[0] for name, uses in uses_of(evidence).items() if not uses[0].all_run}
    drawn = list(chosen.items())[:SHOWN]
    if not drawn:
        return None
    heights = [0.8 + 0.2 * len(_groups(use)) for _, use in drawn]
    figure = Figure(figsize=(7.5, sum(heights) + 0.3), layout="constrained")
    panels = figure.subplots(len(drawn), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, (name, use) in zip(panels, drawn, strict=True):
        layers = _layers(list(use.layers))
        groups = _groups(use)
        table = np.array([[share for layer in layers for share in use.layers[layer]["by_group"][group]]
                          for group in groups])  # fmt: skip
        experts = [len(use.layers[layer]["load"]) for layer in layers]
        image = axes.imshow(table, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        if table.size <= CELLS:
            for (row, column), share in np.ndenumerate(table):
                colour = "white" if share > 0.6 else "#333333"
                axes.text(column, row, f"{100 * share:.0f} %", ha="center", va="center", fontsize=6.5, color=colour)
        axes.set_xticks(range(table.shape[1]), [str(expert) for count in experts for expert in range(count)])
        axes.set_yticks(range(len(groups)), groups, fontsize=6.5)
        for edge in np.cumsum(experts)[:-1]:
            axes.axvline(edge - 0.5, color="#333333", linewidth=0.8)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.set_xlabel("expert" if len(layers) == 1 else "expert, layer by layer")
        axes.set_title(name, fontsize=8)
    figure.colorbar(image, ax=list(panels), shrink=0.5, label="share of rows")
    return figure


def _groups(use: Use) -> list[str]:
    return list(next(iter(use.layers.values()))["by_group"])


def _layers(names: Sequence[str]) -> list[str]:
    places = np.linspace(0, len(names) - 1, min(LAYERS, len(names))).round().astype(int)
    return [names[place] for place in places]
