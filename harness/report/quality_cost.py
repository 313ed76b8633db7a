"""The section "Quality against cost": a row for each way to spend compute, and what an oracle would reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.display.formats import difference, difference_interval, points, points_interval, ratio, scored
from harness.display.formats import score_interval as bounds
from harness.report.evidence import Evidence
from harness.report.words import cost_in_words, reference_in_words
from harness.results.columns import column_of
from harness.results.metric import Column


@dataclass(frozen=True)
class QualityCost:
    """What the templates show."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: str
    notes: tuple[str, ...]
    """Sentences below the table."""


def quality_cost(evidence: Evidence) -> QualityCost | None:
    """The section; None where the run has no curves."""
    found = evidence.run.curves
    score = column_of(found["score"]) if found else None
    if found is None or score is None or evidence.reference is None:
        return None
    two = any(family["apgr"] for family in found["families"])
    low, high = found["budgets"]
    columns = ("way to spend compute", "points", "cost", f"best {score.title}", f"mean {score.title} (AIQ)",
               f"gain over {reference_in_words(evidence)}", *(("APGR", "CPT(80 %)") if two else ()))  # fmt: skip
    rows = tuple(_row(family, score, two=two) for family in found["families"])
    words = (
        f"Nothing costs more than {reference_in_words(evidence)}: there is no range of budgets for a mean."
        if low == high
        else f"AIQ (RouterBench): the mean {score.title} over all budgets from {ratio(low)} to {ratio(high)}, if each "
        f"is spent on the best mixture of a way's points and {reference_in_words(evidence)}. The 95 % intervals are of "
        "these models; they allow for the points' having been picked on the test examples."
    )
    return QualityCost(columns, rows, words, tuple(_notes(evidence, found, two=two)))


def _row(family: dict[str, Any], score: Column, *, two: bool) -> tuple[str, ...]:
    costs = [point["cost"] for point in family["points"]]
    best = max(family["points"], key=lambda point: (score.sign * point["score"], -point["cost"]))
    least, most = ratio(min(costs)), ratio(max(costs))
    cost = least if least == most else f"{least} – {most}"
    aiq, gain = family["aiq"], family["gain"]
    cells = [family["name"], str(len(costs)), cost, f"{scored(best['score'], score.is_share)} at {ratio(best['cost'])}",
             _with(scored(aiq["value"], score.is_share), bounds(aiq["low"], aiq["high"], score.is_share)),
             _gain(gain, score)]  # fmt: skip
    if two:
        cells += [_share(family["apgr"]), _share((family["cpt"] or {}).get("0.8"))]
    return tuple(cells)


def _gain(gain: dict[str, Any], score: Column) -> str:
    """By how much it is better, whatever the score's direction."""
    value = difference(gain["value"], score.is_share)
    return _with(value, difference_interval(gain["low"], gain["high"], score.is_share))


def _share(found: dict[str, Any] | None) -> str:
    if found is None or found["value"] is None:
        return "–"
    low, high = found["low"], found["high"]
    ends = "" if low is None else f"{low:.2f} .. {'?' if high is None else f'{high:.2f}'}"
    return _with(f"{found['value']:.2f}", ends)


def _with(value: str, interval: str) -> str:
    return f"{value} [{interval}]" if interval else value


def _notes(evidence: Evidence, found: dict[str, Any], *, two: bool) -> list[str]:
    oracle, notes = found["oracle"], []
    if two:
        notes.append(
            "APGR: the mean share of the gap between the weak and the strong model that is recovered, over all shares "
            "of calls to the strong one; a random router has 0.5. CPT(80 %): the smallest share of calls that recovers "
            "80 % of the gap; a random router needs 0.8."
        )
    if not oracle["why"]:
        best, luck = oracle["score"], oracle["luck_corrected"]
        notes.append(
            f"An oracle that calls for each example the cheapest of the {oracle['models']} single models that is right "
            f"would have an accuracy of {_accuracy(best, oracle['gain'])} at {cost_in_words(oracle['cost'])}. With "
            "only the number of models that are right on an example to go by, and not which, it would have "
            f"{_accuracy(luck, oracle['luck_corrected_gain'])}: the rest is luck, or has to be seen in the example "
            "itself."
        )
    return notes


def _accuracy(score: dict[str, Any], gain: dict[str, Any]) -> str:
    """The score, and what it gains over the reference."""
    over = _with(points(gain["value"]), points_interval(gain["low"], gain["high"]))
    return f"{scored(score['value'], is_share=True)} ({over} points)"
