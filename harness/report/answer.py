"""The answer first: one sentence that no reader has to take back later, and a few figures beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.display.formats import percent, points, points_interval, ratio
from harness.report.evidence import Evidence, best, is_one_model, over_seeds
from harness.report.parts import DOMAINS, Parts
from harness.results.evidence import mean_over_seeds


@dataclass(frozen=True)
class Answer:
    """The sentence, in pieces that are either text or a variant's name, and sentences that qualify it."""

    pieces: tuple[tuple[str, str], ...]
    """("text" | "code", words)"""
    notes: tuple[str, ...]
    headlines: tuple[tuple[str, str], ...]
    """(figure, what it is)"""


def answer(evidence: Evidence) -> Answer:
    """What the run says about its question."""
    reference = evidence.reference
    if reference is None:
        return Answer((("text", f"There is no answer: {_why_none(evidence)}."),), (), ())
    main = evidence.ok[evidence.ok["pool"] == "main"]
    alone = np.array([is_one_model(evidence, row) for row in main.to_dict("records")], dtype=bool)
    cheap = main[alone]
    made_of_all = cheap[cheap["family"].isin(["weights", "trained"])]
    singles = cheap if made_of_all.empty else made_of_all
    ensembles = main.drop(cheap.index)
    one, ensemble = best(singles), best(ensembles)
    if ensemble is None or one is None:
        pieces: list[tuple[str, str]] = _alone(best(evidence.ok) or reference)
    else:
        pieces = _one_against_ensemble(evidence, one, ensemble, len(singles) * len(ensembles))
    headlines = _headlines(evidence, reference, one, ensemble)
    return Answer(tuple(pieces), tuple(_notes(evidence, reference)), tuple(headlines))


def _why_none(evidence: Evidence) -> str:
    name = evidence.run.record["reference"]["variant"]
    rows = evidence.rows[evidence.rows["variant"] == name].to_dict("records")
    return f"the reference {name} has no result in this run" + "".join(f" ({row['reason']})" for row in rows)


def _alone(row: dict[str, Any]) -> list[tuple[str, str]]:
    interval = f"{percent(row['accuracy'])} ({percent(row['accuracy_low'])} to {percent(row['accuracy_high'])})"
    return [("code", row["variant"]), ("text", f" is the most accurate: {interval}.")]


def _one_against_ensemble(
    evidence: Evidence, one: dict[str, Any], ensemble: dict[str, Any], pairs: int
) -> list[tuple[str, str]]:
    """Both were picked on the test split, so one is called better only where that would hold of any of the pairs."""
    costs = ratio(evidence.flops_ratio(one)), ratio(evidence.flops_ratio(ensemble))
    cost = f"{costs[0]} the FLOPs of the reference instead of {costs[1]}"
    if not evidence.has(one["variant"], ensemble["variant"]):
        gap = points(one["accuracy"] - ensemble["accuracy"])
        between = f" is {gap} points from the best ensemble, "
        doubt = f", at {cost}; this folder has no per-example results, so the difference has no interval."
    else:
        apart = evidence.difference(one["variant"], ensemble["variant"])
        interval = f"{points(apart.value)} points, 95 % interval {points_interval(apart.low, apart.high)}"
        if pairs > 1:
            interval += f", uncorrected; the verdict is corrected for the choice among {pairs} pairs"
        between = {
            1: " is more accurate than the best ensemble, ",
            0: " cannot be told apart from the best ensemble, ",
            -1: f" is {_best_alone(one)}, and less accurate than the best ensemble, ",
        }[evidence.direction(one["variant"], ensemble["variant"], pairs)]
        doubt = f" ({interval}), at {cost}."
    standings = [_standing(evidence, row) for row in (one, ensemble)]
    against = f" Against the reference, the first {standings[0]} and the second {standings[1]}."
    return [("code", one["variant"]), ("text", between), ("code", ensemble["variant"]), ("text", doubt + against)]


def _best_alone(row: dict[str, Any]) -> str:
    """What the best single model is called: a member that was left as it is was not made of all."""
    return "the best single model" + (" made of all" if row["family"] in ("weights", "trained") else "")


def _standing(evidence: Evidence, row: dict[str, Any]) -> str:
    """How a variant that was picked on the test split stands, with allowance for all that it was picked from."""
    reference = evidence.reference
    assert reference is not None
    if row["verdict"] == "reference":
        return "is the reference itself"
    gap = points(row["diff_vs_reference"])
    if not evidence.has(row["variant"], reference["variant"]):
        return f"is {gap} points from it"
    shown = evidence.direction(row["variant"], reference["variant"], len(evidence.ok) - 1)
    return {1: f"is better ({gap})", 0: f"cannot be told apart from it ({gap})", -1: f"is worse ({gap})"}[shown]


def _notes(evidence: Evidence, reference: dict[str, Any]) -> list[str]:
    notes = []
    others = evidence.ok[evidence.ok["variant"] != reference["variant"]]
    counts = others["verdict"].value_counts()
    words = ", ".join(f"{counts.get(word, 0)} {word}" for word in ("better", "worse", "unclear"))
    notes.append(
        f"Against the reference {reference['variant']} ({percent(reference['accuracy'])}), chosen on held-out, "
        f"of {len(others)} other variants {words}; no correction for their number is made."
    )
    notes += _bits(evidence, reference)
    if len(evidence.ok) > 1:
        notes.append(
            f"The most accurate of {len(evidence.ok)} variants was picked on the test split, so its own score is "
            "optimistic."
        )
    return notes


def _bits(evidence: Evidence, reference: dict[str, Any]) -> list[str]:
    """The fewest bits per byte, of all and of single models: a sharper measure than choices, where there is one."""
    main = evidence.ok[evidence.ok["pool"] == "main"]
    parts = Parts(evidence.run, DOMAINS, "main")
    names = [name for name in main["variant"] if parts.measured(name, reference["variant"])]
    if not names:
        return []
    mean = {name: mean_over_seeds(parts.mean(name)) for name in names}
    single = [n for n in names if evidence.by_name[n]["family"] in ("weights", "trained")]
    chosen = dict.fromkeys(min(group, key=mean.__getitem__) for group in (names, single) if group)
    words = []
    for name in chosen:
        gap = over_seeds(parts.mean(name) - parts.mean(reference["variant"]))
        words.append(f"{name} {gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})".replace("-", "−"))
    what = "best of all, and best single model made of all" if len(words) > 1 else "best of all"
    gaps = "; ".join(words)
    return [f"In bits per byte of test text, mean over the domains, against the reference: {gaps} ({what})."]


def _headlines(
    evidence: Evidence, reference: dict[str, Any], one: dict[str, Any] | None, ensemble: dict[str, Any] | None
) -> list[tuple[str, str]]:
    shown = [(percent(reference["accuracy"]), f"reference: {reference['variant']}")]
    if ensemble:
        cost = ratio(evidence.flops_ratio(ensemble))
        shown.append((percent(ensemble["accuracy"]), f"best ensemble: {ensemble['variant']}, {cost} the FLOPs"))
    if one:
        cost = ratio(evidence.flops_ratio(one))
        what = _best_alone(one).removeprefix("the ")
        shown.append((percent(one["accuracy"]), f"{what}: {one['variant']}, {cost} the FLOPs"))
    for found in evidence.run.correlations:
        if found["seed"] == "all" and found["pool"] == "main" and found["metric"] == "nll":
            shown.append((correlation_words(found["pearson"]), f"ensemble–average correlation (NLL), n = {found['n']}"))
    return shown


def correlation_words(coefficient: dict[str, Any]) -> str:
    """A coefficient with its interval: "0.94 (0.87 to 0.99)"."""
    if coefficient["value"] is None:
        return "undefined"
    bounds = "" if coefficient["low"] is None else f" ({coefficient['low']:.2f} to {coefficient['high']:.2f})"
    return f"{coefficient['value']:.2f}{bounds}".replace("-", "−")
