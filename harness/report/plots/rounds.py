"""Rounds of revision against quality: what restored texts have right, and what is then read."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.report.evidence import Evidence
from harness.report.plots.style import SEED_COLOURS
from harness.report.stages import WORDS, by_rounds, measures_of

ROUNDS = (
    "Rounds of revision against quality on test, with the 95 % interval of each alone: 0 is the output of one shot, "
    "and the dashed line is the text as it was given. Neighbours share most errors: what rounds change, paired "
    "by example, is in the table."
)
Point = tuple[float, ...]
"""Rounds, a share, and the ends of its interval."""


def rounds(evidence: Evidence) -> Figure | None:
    """Words that are right, and accuracy, by rounds: a line for variants that differ in nothing else."""
    measures = measures_of(evidence)
    groups = [group for group in by_rounds(evidence, measures) if len(group) > 1]
    if not groups:
        return None
    figure = Figure(figsize=(8.8, 3.6), layout="constrained")
    words, accuracy = figure.subplots(1, 2)
    for number, group in enumerate(groups):
        label, shift = group[min(group)], 0.06 * number
        restored = {at: [of for metric, of in measures[name].items() if metric.startswith(WORDS)]
                    for at, name in group.items()}  # fmt: skip
        if all(len(each) > 1 for each in restored.values()):
            of_words = [(at, *(float(each[-1][key]) for key in ("value", "low", "high")))
                        for at, each in restored.items()]  # fmt: skip
            _line(words, of_words, number, label, shift)
            words.axhline(100 * float(next(iter(restored.values()))[0]["value"]), color="#999999", linestyle="--",
                          linewidth=0.8)  # fmt: skip
        rows = [(at, evidence.by_name[name]) for at, name in group.items()]
        keys = ("accuracy", "accuracy_low", "accuracy_high")
        _line(accuracy, [(at, *(float(row[key]) for key in keys)) for at, row in rows], number, label, shift)
    words.set(xlabel="rounds", ylabel="words that are right, %")
    accuracy.set(xlabel="rounds", ylabel="accuracy of the class, %")
    accuracy.legend(fontsize=7.5)
    return figure


def _line(axes: Axes, points: list[Point], number: int, label: str, shift: float) -> None:
    x = [at + shift for at, _, _, _ in points]
    y = [100 * value for _, value, _, _ in points]
    ends = [[100 * max(0.0, value - low) for _, value, low, _ in points],
            [100 * max(0.0, high - value) for _, value, _, high in points]]  # fmt: skip
    colour = SEED_COLOURS[number % len(SEED_COLOURS)]
    axes.errorbar(x, y, yerr=ends, color=colour, marker="o", markersize=4, linewidth=1.2, capsize=2, label=label)
