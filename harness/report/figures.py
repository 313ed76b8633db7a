"""The figures, as matplotlib objects without a display: the same run gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import matplotlib as mpl
from matplotlib.figure import Figure

from harness.report.evidence import Evidence
from harness.report.plots.agreement import CORRELATION, correlation
from harness.report.plots.by_part import DOMAINS, VIEWS, WEIGHTS, domains, views, weights
from harness.report.plots.curves import DROPOUT, SWEEPS, barrier, barrier_caption, dropout, sweeps
from harness.report.plots.gain import gain, gain_caption, gain_narrow
from harness.report.plots.quality_cost import quality_cost, quality_cost_caption, quality_cost_narrow
from harness.report.plots.reliability import RELIABILITY, reliability
from harness.report.plots.rounds import ROUNDS, rounds
from harness.report.plots.routing import ROUTING, routing
from harness.report.plots.style import STYLE

FIRST, NARROW = "gain", "gain_narrow"
"""The first figure, and its form for narrow screens."""
CURVES, CURVES_NARROW = "quality_cost", "quality_cost_narrow"
"""The figure that has a section of its own, and its form for narrow screens."""


def figures(evidence: Evidence) -> Iterator[tuple[str, str, Figure]]:
    """Name, caption and figure of everything that this run can show."""
    makers: tuple[tuple[str, Callable[[Evidence], Figure | None], str | Callable[[Evidence], str]], ...] = (
        (FIRST, gain, gain_caption),
        (NARROW, gain_narrow, gain_caption),
        (CURVES, quality_cost, quality_cost_caption),
        (CURVES_NARROW, quality_cost_narrow, quality_cost_caption),
        ("correlation", correlation, CORRELATION),
        ("domains", domains, DOMAINS),
        ("views", views, VIEWS),
        ("weights", weights, WEIGHTS),
        ("reliability", reliability, RELIABILITY),
        ("sweeps", sweeps, SWEEPS),
        ("dropout", dropout, DROPOUT),
        ("barrier", barrier, barrier_caption),
        ("rounds", rounds, ROUNDS),
        ("routing", routing, ROUTING),
    )
    for name, make, caption in makers:
        with mpl.rc_context(STYLE):
            figure = make(evidence)
        if figure is not None:
            yield name, caption if isinstance(caption, str) else caption(evidence), figure
