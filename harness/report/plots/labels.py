"""Names beside marks, where nothing else is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

SIZE = 8
"""Of the names, in points."""
DISTANCES = (8, 14, 22, 32, 44, 58, 74, 92, 112, 134, 160)
"""From a mark to its name, in points; tried in this order."""
ANGLES = (0, 180, 30, 330, 150, 210, 60, 300, 120, 240, 90, 270)
NEAR = 10
"""Up to this distance a name needs no line to its mark."""
ON_SOMETHING, ON_A_LINE, BEHIND_SOMETHING = 1000.0, 25.0, 60.0
"""What it costs to put a name on another or on a mark; on an interval; or its line behind one of the first two."""


@dataclass(frozen=True)
class Named:
    """A mark with its interval, in the axes' data coordinates, and its name."""

    name: str
    x: float
    value: float
    low: float
    high: float
    upright: bool = False
    """Whether the name stands upright on the interval: for marks in a crowd."""


@dataclass(frozen=True)
class _Place:
    box: Bbox
    angle: int
    shift: tuple[float, float]
    """From the mark, in points."""
    far: bool


def name_marks(axes: Axes, marks: Sequence[Named]) -> list[Bbox]:
    """Write the names into axes whose limits and place in the figure are final; returns where they are, in pixels."""
    figure = axes.figure
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[arg-type]
    per_point = figure.dpi / 72
    free = _Free(axes, marks, per_point)
    for mark in sorted(marks, key=lambda each: (not each.upright, -each.value, each.name)):
        if mark.upright:
            text = axes.annotate(mark.name, (mark.x, mark.high), xytext=(0, 4), textcoords="offset points",
                                 rotation=90, ha="center", va="bottom", fontsize=SIZE)  # fmt: skip
            free.taken.append(text.get_window_extent(renderer))
            continue
        text = axes.annotate(mark.name, (mark.x, mark.value), fontsize=SIZE)
        size = text.get_window_extent(renderer)
        text.remove()
        place = free.place(mark, size.width, size.height)
        free.taken.append(place.box)
        line = {"arrowstyle": "-", "color": "#aaaaaa", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        axes.annotate(
            mark.name, (mark.x, mark.value), xytext=place.shift, textcoords="offset points", fontsize=SIZE,
            ha=_side(place.angle), va="center", arrowprops=line if place.far else None, zorder=4,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip
    return free.taken


class _Free:
    """What is free of names, marks and intervals, in pixels."""

    def __init__(self, axes: Axes, marks: Sequence[Named], per_point: float) -> None:
        to_pixels = axes.transData.transform
        self.per_point = per_point
        self.inside = axes.get_window_extent()
        self.points: dict[Named, tuple[float, float]] = {
            mark: tuple(to_pixels((mark.x, mark.value))) for mark in marks
        }
        self.dots = {mark: _around(x, y, 4.5 * per_point) for mark, (x, y) in self.points.items()}
        ends = [to_pixels([(mark.x, mark.low), (mark.x, mark.high)]) for mark in marks]
        self.lines = [Bbox([[x - per_point, low], [x + per_point, high]]) for (x, low), (_, high) in ends]
        self.zero = float(to_pixels((1, 0))[1])
        self.taken: list[Bbox] = []

    def place(self, mark: Named, width: float, height: float) -> _Place:
        """The cheapest place inside the axes."""
        x, y = self.points[mark]
        found: list[tuple[float, _Place]] = []
        for distance, angle in ((distance, angle) for distance in DISTANCES for angle in ANGLES):
            shift = tuple(distance * turn(math.radians(angle)) for turn in (math.cos, math.sin))
            box = _box(x + shift[0] * self.per_point, y + shift[1] * self.per_point, width, height, angle)
            # Where nothing fits, as in a tiny figure, the first one is as good as any.
            if not found or _within(box, self.inside):
                place = _Place(box, angle, (shift[0], shift[1]), distance > NEAR)
                outside = 0.0 if _within(box, self.inside) else 10 * ON_SOMETHING
                cost = outside + self._cost(mark, place)
                found.append((distance + cost, place))
                if not cost:  # nothing that is farther off is better
                    break
        return min(found, key=lambda each: each[0])[1]

    def _cost(self, mark: Named, place: _Place) -> float:
        box, others = place.box, [dot for other, dot in self.dots.items() if other is not mark]
        on_something = sum(map(box.overlaps, [*self.taken, *self.dots.values()]))
        on_lines = sum(map(box.overlaps, self.lines)) + (box.y0 < self.zero < box.y1)
        behind = 0
        if place.far:
            x, y = self.points[mark]
            line = list(_line(x, y, place))
            behind = sum(any(other.contains(*at) for at in line) for other in (*self.taken, *others))
        return ON_SOMETHING * on_something + ON_A_LINE * on_lines + BEHIND_SOMETHING * behind


def _side(angle: int) -> str:
    """The side of a name that its mark is on."""
    return "center" if angle in (90, 270) else "left" if angle < 90 or angle > 270 else "right"


def _box(x: float, y: float, width: float, height: float, angle: int) -> Bbox:
    left = {"left": x, "right": x - width, "center": x - width / 2}[_side(angle)]
    return Bbox([[left, y - height / 2], [left + width, y + height / 2]])


def _around(x: float, y: float, by: float) -> Bbox:
    return Bbox([[x - by, y - by], [x + by, y + by]])


def _within(box: Bbox, outer: Bbox) -> bool:
    return bool(outer.x0 <= box.x0 and box.x1 <= outer.x1 and outer.y0 <= box.y0 and box.y1 <= outer.y1)


def _line(x: float, y: float, place: _Place) -> Iterator[tuple[float, float]]:
    """Points on the line from a mark to its name."""
    box = place.box
    end = {"left": box.x0, "right": box.x1, "center": (box.x0 + box.x1) / 2}[_side(place.angle)]
    for share in np.linspace(0, 1, 24):
        yield x + share * (end - x), y + share * ((box.y0 + box.y1) / 2 - y)
