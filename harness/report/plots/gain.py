"""The first picture: what every method gains over the best single model, and what it costs to serve."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from harness.display.formats import difference
from harness.report.evidence import Evidence, Gain
from harness.report.plots.labels import Named, name_marks
from harness.report.plots.style import FAMILIES
from harness.report.scale import Scale, scale_of
from harness.report.words import reference_in_words, unit
from harness.results.metric import Column

TICKS = (0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128)
SAME_PLACE = 0.07
"""Costs this close, in decades, are drawn side by side."""
STEP = 0.016
"""How far apart, as a share of the axis: names stand upright between them."""
CROWD = 7
"""Marks of one cost, from which on their names stand upright, each above its own interval."""
GREY = "#666666"


@dataclass(frozen=True)
class Mark:
    """One method of a pool, as its best variant by the suite's score has it."""

    label: str
    variant: str
    family: str
    cost: float
    gain: Gain


@dataclass(frozen=True)
class Marks:
    """What is drawn, and what is too far below."""

    shown: list[Mark]
    hidden: list[Mark]
    others: list[Mark]
    """Of other pools."""
    scale: Scale
    """Of gains in the score's unit, shares in points."""


@lru_cache(maxsize=1)  # two figures and their captions ask
def marks(evidence: Evidence) -> Marks | None:
    """The methods of the main pool, near and far, and those of other pools that are near; None without any."""
    main = list(_of_pool(evidence, evidence.main))
    if evidence.reference is None or not main:
        return None
    times = 100.0 if evidence.score.is_share else 1.0
    values, lows, highs = (times * np.array([getattr(mark.gain, end) for mark in main])
                           for end in ("value", "low", "high"))  # fmt: skip
    scale = scale_of(values, lows, highs, sign=1, middle=0.0)
    pools = [pool for pool in evidence.pools if pool != evidence.main] if evidence.corrected else []
    others = [mark for pool in pools for mark in _of_pool(evidence, pool)
              if scale.low <= times * mark.gain.value <= scale.high]  # fmt: skip
    shown = [mark for mark, near in zip(main, scale.near, strict=True) if near]
    hidden = [mark for mark, near in zip(main, scale.near, strict=True) if not near]
    return Marks(shown, hidden, others, scale)


def _of_pool(evidence: Evidence, pool: str) -> Iterator[Mark]:
    rows = evidence.ok[(evidence.ok["pool"] == pool) & (evidence.ok["verdict"] != "reference")]
    ordered = evidence.ordered(rows[rows[evidence.score.name].notna()])
    for row in ordered.drop_duplicates("method").to_dict("records"):
        gain, cost = evidence.gain(row["variant"]), evidence.own_cost_ratio(row)
        if gain and cost > 0:
            yield Mark(str(row["method"]).replace("_", " "), row["variant"], row["family"], cost, gain)


def gain_caption(evidence: Evidence) -> str:
    """What the picture shows, and all that is left out of it."""
    found = marks(evidence)
    assert found is not None
    score = evidence.score
    up = f" Up is better: the gain is by how much the {score.title} is lower." if score.sign < 0 else ""
    others = " Faint marks are of other pools, each against its own pool's best single model." if found.others else ""
    return (
        f"Gain in {score.title} over {reference_in_words(evidence)}, with the 95 % interval of each difference alone, "
        f"against the {evidence.serving.title} of one example in units of that model's.{up} One mark for each method "
        "of the main pool: its best variant by the score on the test examples, which flatters methods with many "
        "variants. Marks of one "
        f"cost stand side by side.{others}{_left_out(score, found.hidden, len(found.hidden))}"
    )


def _left_out(score: Column, hidden: list[Mark], most: int) -> str:
    """The names of what is too far below; empty where there is none."""
    if not hidden:
        return ""
    names = [f"{mark.variant} {difference(mark.gain.value, score.is_share)}" for mark in hidden[:most]]
    more = f" and {len(hidden) - most} more" if len(hidden) > most else ""
    return f" Not drawn, far below: {', '.join(names)}{more}{unit(score)}."


def gain(evidence: Evidence) -> Figure | None:
    """Gain against serving cost, wide."""
    found = marks(evidence)
    if found is None:
        return None
    score = evidence.score
    figure = Figure(figsize=(9, 5.2))
    axes = figure.add_axes((0.08, 0.2, 0.9, 0.78))
    low, high = _limits(found.scale)
    costs = [mark.cost for mark in (*found.shown, *found.others)] or [1.0]
    left, right = min(0.5, min(costs) / 1.5), max(2.0, 1.9 * max(costs))
    placed = list(_side_by_side(found.shown, STEP * math.log10(right / left)))
    upright = [mark for group, _ in placed for mark in group if len(group) >= CROWD]
    longest = 0.0148 * max((len(mark.label) for mark in upright), default=0)  # of the height
    tops = max((sum(_ends(score, mark)[::2]) for mark in upright), default=low)
    high = max(high, tops + longest / (1 - longest) * (tops - low))
    axes.set(xscale="log", xlim=(left, right), ylim=(low, high))
    ticks = [tick for tick in TICKS if left <= tick <= right]
    axes.set_xticks(ticks, [f"{tick:g}×" for tick in ticks])
    axes.minorticks_off()
    across = f"serving cost, {evidence.serving.title} ({reference_in_words(evidence)} = 1)"
    axes.set(xlabel=across, ylabel=_gained(score, "up"))
    axes.axhline(0, color="#444444", linewidth=1, zorder=1)
    for mark in found.others:
        colour, shape = FAMILIES[mark.family]
        axes.plot(mark.cost, _times(score) * mark.gain.value, shape, color=colour, alpha=0.25, markersize=5, mew=0)
    drawn = [(mark, x) for group, places in placed for mark, x in zip(group, places, strict=True)]
    for mark, x in drawn:
        colour, shape = FAMILIES[mark.family]
        value, below, above = _ends(score, mark)
        axes.errorbar(x, value, yerr=[[below], [above]], fmt=shape, color=colour, ecolor=colour, elinewidth=1.2,
                      markersize=6, mew=0, alpha=0.95, zorder=3)  # fmt: skip
    _legend(figure, found)
    if found.hidden:
        figure.text(0.08, 0.015, _left_out(score, found.hidden, 3).strip(), fontsize=8, color=GREY)
    name_marks(axes, [_named(score, mark, x, upright=mark in upright) for mark, x in drawn])
    return figure


def gain_narrow(evidence: Evidence) -> Figure | None:
    """The same for a narrow screen: a line for each method, by cost and then by gain."""
    found = marks(evidence)
    if found is None or not found.shown:
        return None
    score = evidence.score
    rows = sorted(found.shown, key=lambda mark: (_place(mark.cost), -mark.gain.value, mark.variant))
    height = 0.25 * len(rows) + 1.15
    figure = Figure(figsize=(4.2, height))
    axes = figure.add_axes((0.36, 0.75 / height, 0.5, 1 - 0.85 / height))
    axes.axvline(0, color="#444444", linewidth=1, zorder=1)
    for at, mark in enumerate(rows):
        colour, shape = FAMILIES[mark.family]
        value, below, above = _ends(score, mark)
        axes.errorbar(value, at, xerr=[[below], [above]], fmt=shape, color=colour, ecolor=colour, elinewidth=1.4,
                      markersize=5.5, mew=0)  # fmt: skip
        axes.annotate(f"{mark.cost:.3g}×", (1.03, at), xycoords=("axes fraction", "data"), va="center", fontsize=9,
                      color=GREY, annotation_clip=False)  # fmt: skip
        if at and _place(rows[at - 1].cost) != _place(mark.cost):
            axes.axhline(at - 0.5, color="#bbbbbb", linewidth=0.7)
    axes.set_yticks(range(len(rows)), [mark.label for mark in rows], fontsize=9)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=_limits(found.scale))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    figure.text(0.5, 0.3 / height, _gained(score, "right"), ha="center", fontsize=8.5)
    beside = f"right: {evidence.serving.title} in units of that model's"
    left_out = f"; {len(found.hidden)} far below not drawn" if found.hidden else ""
    figure.text(0.5, 0.08 / height, beside + left_out, ha="center", fontsize=8, color=GREY)
    return figure


def _gained(score: Column, way: str) -> str:
    direction = f"{score.title} lower by" if score.sign < 0 else f"gain in {score.title}"
    return f"{direction}{',' + unit(score) if unit(score) else ''} ({way} is better)"


def _times(score: Column) -> float:
    return 100.0 if score.is_share else 1.0


def _ends(score: Column, mark: Mark) -> tuple[float, float, float]:
    """The gain, and how far its interval reaches below and above it, in the figure's unit."""
    gain = mark.gain
    low, high = (gain.value if math.isnan(end) else end for end in (gain.low, gain.high))
    times = _times(score)
    return times * gain.value, times * max(0.0, gain.value - low), times * max(0.0, high - gain.value)


def _named(score: Column, mark: Mark, x: float, *, upright: bool) -> Named:
    value, below, above = _ends(score, mark)
    return Named(mark.label, x, value, value - below, value + above, upright)


def _limits(scale: Scale) -> tuple[float, float]:
    margin = 0.05 * (scale.high - scale.low)
    return scale.low - margin, scale.high + margin


def _place(cost: float) -> int:
    return round(math.log2(cost))


def _side_by_side(shown: list[Mark], step: float) -> Iterator[tuple[list[Mark], list[float]]]:
    """The marks of each cost, the best first, and where they stand: in a row, this far apart in decades."""
    groups: list[list[Mark]] = []
    for mark in sorted(shown, key=lambda each: (each.cost, each.variant)):
        if groups and math.log10(mark.cost / groups[-1][-1].cost) <= SAME_PLACE:
            groups[-1].append(mark)
        else:
            groups.append([mark])
    for group in groups:
        group.sort(key=lambda each: (-each.gain.value, each.variant))
        middle = float(np.mean([math.log10(mark.cost) for mark in group]))
        yield group, [10 ** (middle + step * (at - (len(group) - 1) / 2)) for at in range(len(group))]


def _legend(figure: Figure, found: Marks) -> None:
    families = [family for family in FAMILIES if any(mark.family == family for mark in found.shown)]
    handles = [Line2D([], [], linestyle="", marker=FAMILIES[family][1], color=FAMILIES[family][0], mew=0, label=family)
               for family in families]  # fmt: skip
    if found.others:
        handles.append(Line2D([], [], linestyle="", marker="o", color=GREY, alpha=0.3, mew=0, label="other pools"))
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.07, 0.045), ncols=len(handles), fontsize=8.5,
                  handletextpad=0.1)  # fmt: skip
