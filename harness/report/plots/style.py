"""How all figures look, and how one becomes files: the same figure gives the same bytes."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart; the shapes say the same again.
FAMILIES = {
    "single": ("#555555", "s"),
    "output": ("#0072B2", "o"),
    "weights": ("#D55E00", "^"),
    "trained": ("#009E73", "D"),
    "staged": ("#CC79A7", "P"),
}


SEED_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.hashsalt": "stockpot",
    "svg.fonttype": "path",
}


COORDINATES = re.compile(rb' (?:d|x|y)="[^"]*"|translate\([^)]*\)')
DECIMALS = re.compile(rb"(\.\d\d)\d+")
"""Places and paths in an SVG, which matplotlib writes to a millionth of a point, and what is left of their decimals."""
STEPS = re.compile(rb"\s*\b([MLQCz])\b\s*")
"""The steps of a path, which need no space around them."""
GLYPH = re.compile(rb'(<use xlink:href="#g-[0-9a-f]+") transform="translate\(([-\d.]+) 0\)"/>')
"""A letter that is moved along its line, which ``x`` does as well."""
ALIKE = re.compile(rb'(?:<use [^>]*( style="[^"]*")/>\n)(?:<use [^>]*\1/>\n)+')
"""Points in a row that look alike."""


def render(figure: Figure) -> dict[str, bytes]:
    """The figure as "svg" and as "png", without a date.

    It is laid out once and drawn once for each; ``savefig`` would lay it out and draw it twice each time.
    """
    svg, png = io.BytesIO(), io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.dpi = 130
        FigureCanvasAgg(figure)  # what texts are measured on
        if layout := figure.get_layout_engine():
            layout.execute(figure)
        figure.set_layout_engine("none")
        FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})  # first: the other sets the dots per inch
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Creator": None})
    return {"svg": _small(svg.getvalue()), "png": png.getvalue()}


def _small(svg: bytes) -> bytes:
    """The same picture in half of the bytes.

    Places are to a hundredth of a point, points in a row have one style, glyphs short names, and comments are left out
    as are spaces that nothing reads.
    """
    svg = re.sub(rb"\s*<!--.*?-->", b"", svg, flags=re.DOTALL).replace(b"DejaVuSans-", b"g-")
    svg = COORDINATES.sub(lambda found: STEPS.sub(rb"\1", DECIMALS.sub(rb"\1", found[0])), svg)
    svg = GLYPH.sub(rb'\1 x="\2"/>', re.sub(rb"\n\s+", b"\n", svg))
    return ALIKE.sub(lambda found: b"<g%s>\n%s</g>\n" % (found[1], found[0].replace(found[1], b"")), svg)
