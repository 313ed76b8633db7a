"""Routing: which experts run for which class, or task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from harness.report.evidence import Evidence
from harness.report.experts import Use, uses_of

ROUTING = (
    "Which experts run for which class or task, on test: the share of its rows (of a text: tokens) that each expert "
    "runs for, with the first seed. Where classes are alike, nothing was learned of them; an expert that is dark "
    "throughout does most of the work."
)
SHOWN, LAYERS = 4, 4
"""Mixtures and layers that are drawn, at most; of more layers those spread evenly from the first to the last."""
CELLS = 60
"""Shares are written into as many cells of a panel, at most."""


def routing(evidence: Evidence) -> Figure | None:
    """A panel for each mixture of which not all experts run, with the first seed."""
    chosen = {name: uses[0] for name, uses in uses_of(evidence).items() if not uses[0].all_run}
    drawn = {name: _panel_of(use) for name, use in list(chosen.items())[:SHOWN]}
    if not drawn:
        return None
    heights = [0.9 + 0.2 * len(panel.down) for panel in drawn.values()]
    figure = Figure(figsize=(7.5, sum(heights) + 0.3), layout="constrained")
    panels = figure.subplots(len(drawn), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, (name, panel) in zip(panels, drawn.items(), strict=True):
        image = _draw(axes, panel)
        axes.set_title(name, fontsize=8)
    figure.colorbar(image, ax=list(panels), shrink=0.5, label="share of rows")
    return figure


@dataclass(frozen=True)
class _Panel:
    """Shares [down, across]: experts, layer by layer, and groups, of which there are more across than down."""

    shares: np.ndarray
    down: list[str]
    across: list[str]
    edges: np.ndarray
    """Where a layer's experts end."""
    experts_down: bool
    layers: int


def _panel_of(use: Use) -> _Panel:
    layers, groups = _layers(list(use.layers)), _groups(use)
    shares = np.array([[share for layer in layers for share in use.layers[layer]["by_group"][group]]
                       for group in groups])  # fmt: skip
    counts = [len(use.layers[layer]["load"]) for layer in layers]
    experts = [str(expert) for count in counts for expert in range(count)]
    edges = np.cumsum(counts)[:-1] - 0.5
    if len(groups) > len(experts):
        return _Panel(shares.T, experts, groups, edges, True, len(layers))
    return _Panel(shares, groups, experts, edges, False, len(layers))


def _draw(axes: Axes, panel: _Panel) -> AxesImage:
    image = axes.imshow(panel.shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if panel.shares.size <= CELLS:
        for (row, column), share in np.ndenumerate(panel.shares):
            colour = "white" if share > 0.6 else "#333333"
            axes.text(column, row, f"{100 * share:.0f} %", ha="center", va="center", fontsize=6.5, color=colour)
    axes.set_xticks(range(len(panel.across)), panel.across, fontsize=6.5)
    axes.set_yticks(range(len(panel.down)), panel.down, fontsize=6.5)
    for edge in panel.edges:
        (axes.axhline if panel.experts_down else axes.axvline)(edge, color="#333333", linewidth=0.8)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    expert = "expert" if panel.layers == 1 else "expert, layer by layer"
    axes.set_xlabel("class or task" if panel.experts_down else expert)
    axes.set_ylabel(expert if panel.experts_down else "")
    return image


def _groups(use: Use) -> list[str]:
    """In the order of their numbers, where these are their names."""
    names = list(next(iter(use.layers.values()))["by_group"])
    return sorted(names, key=int) if all(map(str.isdecimal, names)) else names


def _layers(names: Sequence[str]) -> list[str]:
    places = np.linspace(0, len(names) - 1, min(LAYERS, len(names))).round().astype(int)
    return [names[place] for place in places]
