"""What was tried on held-out: coefficients, passes with dropout, and points on the line between members."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from matplotlib.figure import Figure

from harness.display.formats import number
from harness.report.evidence import Evidence
from harness.report.plots.style import SEED_COLOURS

SWEEPS = "Held-out scores along every coefficient that a variant searched; the dot is what it chose. First seed."
MANY = 200
"""Variants from which on only some have a line."""
SHOWN = 18
"""Lines of a panel, and panels of a figure: those of the best variants that have them."""


def sweeps(evidence: Evidence) -> Figure | None:
    """Held-out accuracy against scale, and NLL against the weight of negative evidence."""
    panels: dict[str, list[tuple[str, list[dict[str, Any]], Any]]] = {"scale": [], "a": []}
    for variant, details in _first_seed(evidence):
        for key, lines in panels.items():
            if (curve := details.get("curve")) and key in curve[0] and len(lines) < SHOWN:
                lines.append((variant, curve, details.get(key)))
    used = {key: lines for key, lines in panels.items() if lines}
    if not used:
        return None
    figure = Figure(figsize=(4.4 * len(used), 3.6), layout="constrained")
    for axes, (key, lines) in zip(figure.subplots(1, len(used), squeeze=False)[0], used.items(), strict=True):
        by_accuracy = "accuracy" in lines[0][1][0] and evidence.run.record["task"].get("criterion") != "nll"
        metric, scale = ("accuracy", 100.0) if by_accuracy else ("nll", 1.0)
        for index, (variant, curve, chosen) in enumerate(lines):
            colour = SEED_COLOURS[index % len(SEED_COLOURS)]
            curve = [point for point in curve if point[metric] is not None]  # an infinite loss has no place
            x, y = [p[key] for p in curve], [scale * p[metric] for p in curve]
            style = ("-", "--", ":")[index // len(SEED_COLOURS) % 3]
            axes.plot(x, y, style, color=colour, linewidth=1.2, label=variant)
            for point in curve:
                if point[key] == chosen:
                    axes.plot(point[key], scale * point[metric], "o", color=colour, markersize=5)
        axes.set(xlabel=key, ylabel="held-out accuracy, %" if metric == "accuracy" else "held-out NLL")
        axes.legend(fontsize=7.5)
    return figure


DROPOUT = (
    "MC dropout, held-out: standard deviation of the mean of T passes (measured over disjoint groups), which theory "
    "says falls as one over the square root of T, and the NLL. First seed."
)


def dropout(evidence: Evidence) -> Figure | None:
    """Spread and NLL of MC dropout against the number of passes."""
    curves = [(name, d["spread_curve"]) for name, d in _first_seed(evidence) if d.get("spread_curve")]
    if not curves:
        return None
    name, curve = max(curves, key=lambda item: len(item[1]))
    spread = [point for point in curve if point.get("std")]
    if not spread:
        return None
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    passes = [point["passes"] for point in spread]
    style: dict[str, Any] = {"color": "#0072B2", "linewidth": 1.2, "marker": "o", "markersize": 4}
    left.loglog(passes, [point["std"] for point in spread], label=name, **style)
    theory = [spread[0]["std"] * (passes[0] / t) ** 0.5 for t in passes]
    left.loglog(passes, theory, "--", color="#999999", label="1/√T")
    left.set(xlabel="passes T", ylabel="standard deviation")
    left.legend(fontsize=8)
    right.semilogx([p["passes"] for p in curve], [p["nll"] for p in curve], **style)
    right.set(xlabel="passes T", ylabel="held-out NLL")
    return figure


def barrier(evidence: Evidence) -> Figure | None:
    """Loss on the straight line between two members, as they are and aligned: one panel for each variant."""
    lines = _interpolated(evidence)
    if not lines:
        return None
    columns, rows = min(3, len(lines)), -(-len(lines) // 3)
    figure = Figure(figsize=(4.4 * columns, 3.6 * rows), layout="constrained")
    for place, (name, details) in enumerate(lines, 1):
        found, heights = details["interpolation"], details["barrier"]
        axes = figure.add_subplot(rows, columns, place)
        ends = [found["before"][end]["nll"] for end in (0, -1)]
        axes.plot([0, 1], ends, color="#999999", linewidth=0.8, linestyle="--", label="no barrier")
        for key, colour, style in (("before", "#D55E00", "o-"), ("after", "#0072B2", "s-")):
            x, y = ([point[column] for point in found[key]] for column in ("a", "nll"))
            axes.plot(x, y, style, color=colour, markersize=4, linewidth=1.2, label=f"{key} alignment")
        first, second = found["between"]
        axes.set(xlabel=f"weight of {second} (the rest is {first}'s)", ylabel="held-out NLL", ylim=(0, None))
        axes.set_title(f"{name}\nbarrier {number(heights['before'])} → {number(heights['after'])} nats", fontsize=8)
        axes.legend(fontsize=8)
    return figure


def barrier_caption(evidence: Evidence) -> str:
    """What the figure shows, and the two barriers of each panel in words."""
    barriers = (
        f"{name} {number(found['barrier']['before'])} before and {number(found['barrier']['after'])} after"
        for name, found in _interpolated(evidence)
    )
    return (
        "Held-out NLL along the straight line between the weights of the two best members, before and after their "
        "units were put into one order. The barrier, the most by which a curve is above the dashed line between its "
        f"ends, in nats: {'; '.join(barriers)}. First seed."
    )


def _interpolated(evidence: Evidence) -> list[tuple[str, dict[str, Any]]]:
    return [(name, found) for name, found in _first_seed(evidence) if "interpolation" in found][:SHOWN]


def _first_seed(evidence: Evidence) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each variant with results found out on the first seed: by name, or of many the best first."""
    seed, known = str(evidence.run.record["seeds"][0]), evidence.run.details
    names = sorted(name for name in evidence.by_name if seed in known.get(name, {}))
    if len(names) > MANY:
        some = set(names)
        names = [name for name in evidence.ordered(evidence.ok)["variant"] if name in some]
    yield from ((name, known[name][seed]) for name in names)
