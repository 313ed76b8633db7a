"""The figures, as matplotlib objects without a display: the same run gives the same bytes."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from harness.display.formats import number
from harness.evaluate.calibration import reliability_bins
from harness.report.answer import correlation_words
from harness.report.evidence import Evidence, best
from harness.report.parts import VIEWS as PART_VIEWS
from harness.report.parts import parts_of

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


def figures(evidence: Evidence) -> Iterator[tuple[str, str, Figure]]:
    """Name, caption and figure of everything that this run can show."""
    makers: tuple[tuple[str, Callable[[Evidence], Figure | None], str | Callable[[Evidence], str]], ...] = (
        ("pareto", pareto, PARETO),
        ("correlation", correlation, CORRELATION),
        ("domains", domains, DOMAINS),
        ("views", views, VIEWS),
        ("weights", weights, WEIGHTS),
        ("reliability", reliability, RELIABILITY),
        ("sweeps", sweeps, SWEEPS),
        ("dropout", dropout, DROPOUT),
        ("barrier", barrier, barrier_caption),
    )
    for name, make, caption in makers:
        with mpl.rc_context(STYLE):
            figure = make(evidence)
        if figure is not None:
            yield name, caption if isinstance(caption, str) else caption(evidence), figure


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
    return {"svg": svg.getvalue(), "png": png.getvalue()}


PARETO = (
    "Accuracy on test against FLOPs per example, with 95 % intervals over seeds and examples. The line joins the "
    "variants that no other beats on both."
)


def pareto(evidence: Evidence) -> Figure | None:
    """Accuracy against FLOPs; variants far below the rest are named in the margin, not drawn."""
    rows = evidence.ok
    if rows.empty:
        return None
    floor = _floor(rows["accuracy"].to_numpy())
    shown, hidden = rows[rows["accuracy"] >= floor], rows[rows["accuracy"] < floor]
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for family, (colour, marker) in FAMILIES.items():
        group = shown[shown["family"] == family]
        if group.empty:
            continue
        x, y = group["flops_per_example"].to_numpy(), 100 * group["accuracy"].to_numpy()
        bars = np.abs(100 * group[["accuracy_low", "accuracy_high"]].to_numpy().T - y)
        axes.errorbar(x, y, yerr=bars, fmt="none", ecolor=colour, alpha=0.25, linewidth=1)
        axes.scatter(x, y, c=colour, marker=marker, s=26, label=family, linewidths=0, alpha=0.85, zorder=3)
    front = shown[shown["pareto"].astype(bool)].sort_values("flops_per_example")
    axes.plot(front["flops_per_example"], 100 * front["accuracy"], color="#333333", linewidth=1, zorder=2)
    last = -np.inf
    for row in front.to_dict("records"):
        y = 100 * row["accuracy"]
        lift = 12 if y - last > 0.4 else 26
        last = y
        axes.annotate(
            row["variant"], (row["flops_per_example"], y), xytext=(0, lift), textcoords="offset points",
            ha="center", fontsize=8, arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6},
        )  # fmt: skip
    if (reference := evidence.reference) and reference["accuracy"] >= floor:
        axes.axhline(100 * reference["accuracy"], color="#999999", linewidth=0.8, linestyle="--", zorder=1)
        label = f"reference: {reference['variant']}"
        axes.annotate(label, (1, 100 * reference["accuracy"]), xycoords=("axes fraction", "data"), xytext=(-2, -10),
                      textcoords="offset points", ha="right", fontsize=8, color="#666666")  # fmt: skip
    axes.set(xscale="log", xlabel="FLOPs per example", ylabel="accuracy, %")
    axes.margins(x=0.12, y=0.16)
    if len(hidden):
        names = [f"{r['variant']} {100 * r['accuracy']:.1f} %" for r in hidden.to_dict("records")]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        axes.set_title(f"not drawn, far below: {', '.join(names[:3])}{more}", fontsize=8, color="#666666")
    axes.legend(loc="lower right", ncols=len(FAMILIES))
    return figure


def _floor(accuracy: np.ndarray) -> float:
    """Below this a variant has collapsed, and drawing it would flatten all others into one line."""
    middle, top = np.median(accuracy), accuracy.max()
    return float(middle - 4 * max(top - middle, 0.01))


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
        sizes = 8 + 6 * group["size"]
        x, y = scale * group["average"], scale * group["ensemble"]
        axes.scatter(x, y, s=sizes, c=colour, alpha=0.6, linewidths=0, label=seed)
    across, up = axes.get_xlim(), axes.get_ylim()
    axes.axline((up[0], up[0]), slope=1, color="#999999", linewidth=0.8, linestyle="--", zorder=1)
    axes.set(xlabel="average of weights", ylabel="ensemble", xlim=across, ylim=up)  # where averages collapse, no line


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
    rows = study[(study["pool"] == pool) & (study["metric"] == metric)]
    worse = (rows["average"] > rows["members"]).mean()
    return f"\nthe average is worse than its mean member in {100 * worse:.0f} % of subsets"


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


RELIABILITY = (
    "Accuracy against confidence in 15 equal bins, all seeds together; bins with fewer than 20 examples are left out."
)


def reliability(evidence: Evidence) -> Figure | None:
    """Reliability of the reference, the best output-space, weight-space and trained variant."""
    chosen = [evidence.reference] + [
        best(evidence.ok[(evidence.ok["family"] == family) & (evidence.ok["pool"] == "main")])
        for family in ("output", "weights", "trained")
    ]
    names = list(dict.fromkeys(row["variant"] for row in chosen if row))
    if not names or not evidence.has(*names):
        return None
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle="--")
    for name in names:
        colour, marker = FAMILIES[evidence.by_name[name]["family"]]
        bins = reliability_bins(evidence.values(name, "confidence").ravel(), evidence.values(name, "correct").ravel())
        bins = bins[bins["count"] >= 20]
        label = f"{name} (ECE {evidence.by_name[name]['ece']:.3f})"
        style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.2}
        axes.plot(bins["confidence"], bins["accuracy"], label=label, **style)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend(loc="upper left", fontsize=8)
    return figure


SWEEPS = "Held-out scores along every coefficient that a variant searched; the dot is what it chose. First seed."


def sweeps(evidence: Evidence) -> Figure | None:
    """Held-out accuracy against scale, and NLL against the weight of negative evidence."""
    panels: dict[str, list[tuple[str, list[dict[str, Any]], Any]]] = {"scale": [], "a": []}
    for variant, details in _first_seed(evidence):
        for key, lines in panels.items():
            if (curve := details.get("curve")) and key in curve[0]:
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
    lines = [(name, found) for name, found in _first_seed(evidence) if "interpolation" in found]
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
    told = (
        f"{name} {number(found['barrier']['before'])} before and {number(found['barrier']['after'])} after"
        for name, found in _first_seed(evidence)
        if "interpolation" in found
    )
    return (
        "Held-out NLL along the straight line between the weights of the two best members, before and after their "
        "units were put into one order. The barrier, the most by which a curve is above the dashed line between its "
        f"ends, in nats: {'; '.join(told)}. First seed."
    )


def _first_seed(evidence: Evidence) -> Iterator[tuple[str, dict[str, Any]]]:
    seed = str(evidence.run.record["seeds"][0])
    for variant, seeds in sorted(evidence.run.details.items()):
        if seed in seeds and variant in evidence.by_name:
            yield variant, seeds[seed]
