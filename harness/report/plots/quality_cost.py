"""Quality against cost: every way to spend compute on the pool's models, in one picture."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from harness.display.formats import ratio, scored
from harness.evaluate.ways import (
    CASCADES,
    ENSEMBLES,
    EXPERTS,
    MERGED,
    PASSES,
    ROUTERS,
    SINGLE,
    STAGED,
    STUDENTS,
)
from harness.report.evidence import Evidence
from harness.report.plots.gain import SAME_PLACE, TICKS
from harness.report.scale import scale_of
from harness.report.words import reference_in_words, unit
from harness.results.columns import column_of
from harness.results.metric import Column

COLOURS = {
    SINGLE: ("#555555", "s"),
    ENSEMBLES: ("#0072B2", "o"),
    PASSES: ("#56B4E9", "v"),
    MERGED: ("#D55E00", "^"),
    STUDENTS: ("#009E73", "D"),
    EXPERTS: ("#E69F00", "h"),
    CASCADES: ("#CC79A7", "P"),
    ROUTERS: ("#000000", "X"),
    STAGED: ("#8C6D31", "*"),
}
"""The first eight are Okabe and Ito's, as in ``style.FAMILIES``."""
OTHERS = (("#7B4FA3", "p"), ("#A0522D", "<"), ("#2F8F8F", ">"), ("#B03060", "d"))
"""Families that have names of their own, in turn."""
DIALS = (ENSEMBLES, PASSES, CASCADES, ROUTERS)
"""Families whose points are settings of one thing, joined by a line."""
GOLD, GREY, BAND = "#A87400", "#666666", "#dcdcdc"
HALO = [withStroke(linewidth=2.5, foreground="white")]
DASHED: dict[str, Any] = {"linewidth": 1.1, "linestyle": (0, (4, 3))}


def quality_cost(evidence: Evidence) -> Figure | None:
    """Score against cost, wide; None where the run has no curves, or next to nothing in them."""
    return _figure(evidence, (9, 5), (0.09, 0.225, 0.89, 0.755), columns=5)


def quality_cost_narrow(evidence: Evidence) -> Figure | None:
    """The same for a narrow screen."""
    return _figure(evidence, (4.6, 5.2), (0.15, 0.33, 0.82, 0.65), columns=2)


def _figure(
    evidence: Evidence, size: tuple[float, float], place: tuple[float, float, float, float], columns: int
) -> Figure | None:
    found, score = evidence.run.curves, _score(evidence)
    if found is None or score is None or evidence.reference is None:
        return None
    if sum(len(family["points"]) for family in found["families"]) < 2:
        return None
    reference = reference_in_words(evidence)
    picture = _Picture(found, score, set(evidence.by_name), step=0.2 / size[0])
    figure = Figure(figsize=size)
    axes = figure.add_axes(place)
    picture.set_limits(axes)
    picture.draw_lines(axes, reference)
    for family in found["families"]:
        picture.draw_family(axes, family)
    picture.draw_oracle(axes)
    _legend(figure, found, place[0] - 0.01, columns)
    if picture.hidden:
        figure.text(place[0], 0.012, f"{picture.hidden} far below not drawn.", fontsize=8, color=GREY)
    of = "%" if score.is_share else unit(score).strip()
    axes.set(xlabel=f"serving cost, {evidence.serving.title} ({reference} = 1)")
    axes.set(ylabel=f"{score.title}{', ' + of if of else ''} (up is better)")
    return figure


def quality_cost_caption(evidence: Evidence) -> str:
    """What the picture shows."""
    found, score = evidence.run.curves, _score(evidence)
    assert found is not None
    assert score is not None
    names = {point["name"] for family in found["families"] for point in family["points"]}
    dial = "" if names <= evidence.by_name.keys() else (
        " Dots: other settings than those that were chosen on held-out, which are the large marks.")  # fmt: skip
    ensemble = found["random"]
    mixed = (
        f" Dashed: choosing at random, example by example, between {reference_in_words(evidence)} and "
        f"{ensemble['to']}; what is not above it is beaten by a coin."
        if ensemble
        else ""
    )
    return (
        f"{score.title[0].upper()}{score.title[1:]} on test against the {evidence.serving.title} of one example, main "
        "pool. Each colour is one way to spend compute; ensembles grow by members, and other rules of ensembles are "
        "left out. The grey band is the best that each budget reaches by any of them, or by mixing two (the hull, "
        f"picked on the test examples).{mixed}{dial} Bars: the 95 % interval of each one's difference from "
        f"{reference_in_words(evidence)}, paired by example, of these models."
    )


def _score(evidence: Evidence) -> Column | None:
    """The score of the curves, which is the run's."""
    return column_of(evidence.run.curves["score"]) if evidence.run.curves else None


class _Picture:
    """What is drawn, and where."""

    def __init__(self, found: dict[str, Any], score: Column, variants: Collection[str], step: float) -> None:
        """``step``: how far apart marks of one cost stand, as a share of the axis."""
        self.found, self.score, self.variants, self.step = found, score, variants, step
        self.times = 100.0 if score.is_share else 1.0
        points = [point for family in found["families"] for point in family["points"]]
        values = np.array([point["score"] for point in points])
        lows, highs = np.array([self._ends(point) for point in points]).T
        self.scale = scale_of(values, lows, highs, score.sign, middle=found["reference"]["score"])
        near = [point for point in points if self._is_near(point)]
        self.hidden = len(points) - len(near)
        costs = [1.0, *(point["cost"] for point in near)]
        self.left, self.right = min(0.7, min(costs) / 1.4), max(2.0, 1.4 * max(costs))

    def _ends(self, point: dict[str, Any]) -> tuple[float, float]:
        """The score at either end of the interval of what it gains; NaN without one."""
        gain, sign = point["gain"], self.score.sign
        if gain["low"] is None:
            return math.nan, math.nan
        low, high = sorted(point["score"] + sign * (gain[end] - gain["value"]) for end in ("low", "high"))
        return low, high

    def _is_near(self, point: dict[str, Any]) -> bool:
        return bool(self.scale.low <= point["score"] <= self.scale.high)

    def set_limits(self, axes: Axes) -> None:
        """Costs by their logarithm; up is better."""
        margin = 0.05 * (self.scale.high - self.scale.low)
        bounds = self.times * (self.scale.low - margin), self.times * (self.scale.high + margin)
        axes.set(xscale="log", xlim=(self.left, self.right), ylim=bounds if self.score.sign > 0 else bounds[::-1])
        ticks = [tick for tick in TICKS if self.left <= tick <= self.right]
        axes.set_xticks(ticks, [f"{tick:g}×" for tick in ticks])
        axes.minorticks_off()
        axes.set_axisbelow(True)

    def draw_lines(self, axes: Axes, reference: str) -> None:
        """The reference, the best of each budget, and what chance gives."""
        value = self.found["reference"]["score"]
        axes.axhline(self.times * value, color="#999999", linewidth=0.8, zorder=1)
        axes.annotate(f"{reference}: {scored(value, self.score.is_share)}", (1, self.times * value), ha="right",
                      xycoords=("axes fraction", "data"), xytext=(-3, -3), va="top", textcoords="offset points",
                      fontsize=8, color=GREY, path_effects=HALO, zorder=6)  # fmt: skip
        self._line(axes, self.found["hull"], self.right, color=BAND, linewidth=7, zorder=1.5)
        if self.found["random"]:
            self._line(axes, self.found["random"]["points"], 0.0, color=GREY, zorder=2, **DASHED)

    def _line(self, axes: Axes, corners: list[list[float]], right: float, **style: Any) -> None:
        """Straight pieces in the plain cost, which bend on a logarithmic scale; flat beyond the last corner."""
        x, y = (np.array(each, float) for each in zip(*corners, strict=True))
        costs = np.unique(np.concatenate([x, np.geomspace(x[0], max(right, x[-1]), 200)]))
        axes.plot(costs, self.times * np.interp(costs, x, y), **style)

    def draw_family(self, axes: Axes, family: dict[str, Any]) -> None:
        """Its marks, beside those of other families of the same cost; joined where it has a dial.

        What is no variant of the run is a setting of one's dial: a small mark.
        """
        colour, shape = _style(self.found, family["way"])
        near = [point for point in family["points"] if self._is_near(point)]
        x = [self._place(family["way"], point["cost"]) for point in near]
        if _has_dial(family["way"]):
            axes.plot(x, [self.times * point["score"] for point in near], color=colour, linewidth=1.3, zorder=3)
        for place, point in zip(x, near, strict=True):
            value, (low, high) = point["score"], self._ends(point)
            small = point["name"] not in self.variants
            if low < high and not small:
                axes.plot([place, place], [self.times * low, self.times * high], color=colour, linewidth=0.9,
                          alpha=0.4, zorder=2.5)  # fmt: skip
            axes.plot(place, self.times * value, "." if small else shape, color=colour, markersize=6.5, mew=0, zorder=4,
                      alpha=0.95)  # fmt: skip

    def _place(self, way: str, cost: float) -> float:
        """Where a mark of this cost stands: the ways without a dial that have one stand in a row."""
        if _has_dial(way):
            return cost
        beside = list(dict.fromkeys(
            family["way"] for family in self.found["families"] for point in family["points"]
            if abs(math.log10(point["cost"] / cost)) < SAME_PLACE / 2 and self._is_near(point)
            and not _has_dial(family["way"])
        ))  # fmt: skip
        step = self.step * math.log10(self.right / self.left)
        return float(cost * 10 ** (step * (beside.index(way) - (len(beside) - 1) / 2)))

    def draw_oracle(self, axes: Axes) -> None:
        """A star, or its name where it is above the picture; only where the run goes by right and wrong answers."""
        oracle = self.found["oracle"]
        if oracle["why"] or self.score.outcome != "correct":
            return
        for name, words, face in (("score", "oracle", GOLD), ("luck_corrected", "oracle without luck", "white")):
            value, cost = oracle[name]["value"], oracle["cost"]
            if value > self.scale.high:
                told = f"▲ {words}: {scored(value, is_share=True)} at {ratio(cost)}"
                axes.annotate(told, (0, 1), xycoords="axes fraction", xytext=(6, -2), textcoords="offset points",
                              va="top", fontsize=8.5, color=GOLD, path_effects=HALO, zorder=6)  # fmt: skip
            elif value >= self.scale.low and self.left <= cost:
                axes.plot(cost, self.times * value, "*", markersize=12, color=face, mec=GOLD, zorder=5)
                axes.annotate(words, (cost, self.times * value), xytext=(7, 0), textcoords="offset points",
                              va="center", fontsize=8.5, color=GOLD, path_effects=HALO, zorder=6)  # fmt: skip


def _style(found: dict[str, Any], way: str) -> tuple[str, str]:
    others = [family["way"] for family in found["families"] if family["way"] not in COLOURS]
    return COLOURS[way] if way in COLOURS else OTHERS[others.index(way) % len(OTHERS)]


def _has_dial(way: str) -> bool:
    return way in DIALS or way not in COLOURS


def _legend(figure: Figure, found: dict[str, Any], left: float, columns: int) -> None:
    handles = []
    for way in dict.fromkeys(family["way"] for family in found["families"]):
        colour, shape = _style(found, way)
        handles.append(Line2D([], [], linestyle="-" if _has_dial(way) else "", marker=shape, color=colour, mew=0,
                              label=way))  # fmt: skip
    handles.append(Line2D([], [], color=BAND, linewidth=6, label="best of each budget"))
    if found["random"]:
        handles.append(Line2D([], [], color=GREY, label="chosen at random", **DASHED))
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(left, 0.035), ncols=columns, fontsize=8.5,
                  handletextpad=0.7, columnspacing=1.4)  # fmt: skip
