"""Students: what each keeps of its teachers' gain, by its size, its start and what it learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import stats
from harness.display.formats import MINUS, percent, ratio
from harness.evaluate.decisions import LIKE_THESE, THESE
from harness.report.by_score import Score, Values, level, mean_of, minus, scores, values_of
from harness.report.claim import in_units
from harness.report.evidence import Evidence, over_seeds
from harness.report.lookup import in_pool, members_of, variants_of
from harness.results.evidence import mean_over_seeds

UNCERTAIN = "the ensemble's gain is not certain"
DASH = "–"
OF_TARGETS = ("alpha", "temperature")
"""The parameters that say what a student learns from, and how much."""


@dataclass(frozen=True)
class Gains:
    """What a model and the uniform ensemble gain over the mean of the members, [seeds, units]; above 0 is better."""

    model: np.ndarray
    ensemble: np.ndarray

    @property
    def kept(self) -> float:
        """The share of the ensemble's gain that the model keeps; NaN where there is none."""
        gained = mean_over_seeds(self.ensemble)
        return mean_over_seeds(self.model) / gained if gained else float("nan")

    @property
    def interval(self) -> stats.Interval | None:
        """``kept`` with its 95 % interval over seeds and units; None where the ensemble may gain nothing."""
        return stats.crossed_ratio(self.model, self.ensemble)


def gains_of(values: Values, score: Score, name: str, ensemble: str, members: Sequence[str]) -> Gains:
    """Of a variant and an ensemble of these members, by a score that all of them have."""
    mean = mean_of(values, members)
    return Gains(*(score.better * minus(values(each), mean) for each in (name, ensemble)))


@dataclass(frozen=True)
class Taught:
    """Students with the same teachers, and what these give together."""

    ensemble: str
    members: list[str]
    students: dict[str, dict[str, Any]]
    """Their parameters, by variant."""
    others: list[str]
    """Variants that are not students, to compare with."""


def _taught(evidence: Evidence, pool: str) -> Iterator[Taught]:
    """A pool's students by teachers, where it has the uniform ensemble of these and each of them alone."""
    everyone = members_of(evidence, pool)
    found: dict[tuple[int, ...], dict[str, dict[str, Any]]] = {}
    for name, given, positions in variants_of(evidence, pool, "distill"):
        if evidence.has(name):
            found.setdefault(tuple(positions or range(len(everyone))), {})[name] = given
    for name, given, positions in variants_of(evidence, pool, "linear"):
        chosen = tuple(positions or range(len(everyone)))
        if given.get("weights") == "uniform" and everyone and evidence.has(name) and chosen in found:
            others = [in_pool(pool, each) for each in ("best_single", "uniform_soup")] if positions is None else []
            members = [everyone[position] for position in chosen]
            yield Taught(name, members, found.pop(chosen), [each for each in others if evidence.has(each)])


def students_of(evidence: Evidence) -> list[dict[str, Any]] | None:
    """A table for each pool, or named members of one, that students were taught by; None for a run without any."""
    taught = [each for pool in evidence.pools for each in _taught(evidence, pool)]
    scored = [(each, scores(evidence, each.ensemble, *each.members)) for each in taught]
    return [_table(evidence, each, both) for each, both in scored if both] or None


def _table(evidence: Evidence, taught: Taught, both: list[Score]) -> dict[str, Any]:
    told = [
        _gain_in_words(evidence, taught, both),
        _targets_in_words(evidence, taught, both),
        _teacher_in_words(evidence, taught),
    ]
    names = [*taught.students, *taught.others]
    return {
        "words": " ".join(filter(None, told)),
        "scores": [score.words for score in both],
        "scope": LIKE_THESE if evidence.seeds > 1 else THESE,
        "rows": [_row(evidence, taught, both, name) for name in names],
    }


def _gain_in_words(evidence: Evidence, taught: Taught, both: list[Score]) -> str:
    """What there is to keep: "linear gains +0.92 [+0.80 .. +1.04] points of accuracy (96.30 %) and ..."."""
    told = []
    for score in both:
        values = values_of(evidence, score)
        gained = over_seeds(gains_of(values, score, taught.ensemble, taught.ensemble, taught.members).ensemble)
        unit = "" if score.unit == score.name else f" {score.unit}"
        shown = in_units(gained.value, gained.low, gained.high, score.unit)
        told.append(f"{shown}{unit} of {score.words} ({level(evidence, score, taught.ensemble)})")
    return f"{taught.ensemble} gains {' and '.join(told)} on the mean of its {len(taught.members)} members."


def _targets_in_words(evidence: Evidence, taught: Taught, both: list[Score]) -> str:
    """How often soft targets beat labels alone; empty where no two students differ in nothing else."""
    told = []
    for score in both:
        found = [gain for name in taught.students if (gain := _over_labels(evidence, taught, score, name))]
        if found:
            better, worse = sum(gain.low > 0 for gain in found), sum(gain.high < 0 for gain in found)
            told.append(f"better in {better} and worse in {worse} of {len(found)} by {score.words}")
    if not told:
        return ""
    return (
        "Of two students that differ in nothing else but luck, the one with the ensemble's targets against the one "
        f"with labels alone is {', '.join(told)}."
    )


def _teacher_in_words(evidence: Evidence, taught: Taught) -> str:
    """How much more than labels a soft target can say, of a teacher that has seen its training examples before."""
    told = [each for name in list(taught.students)[:1] for each in evidence.run.details.get(name, {}).values()]
    known = [(each["teacher_right"], each["teacher_confidence"]) for each in told if "teacher_right" in each]
    if not known:
        return ""
    right, sure = (percent(float(share), 1) for share in np.mean(known, axis=0))
    return (
        f"On the training examples the ensemble is right on {right} and {sure} sure of its answer: the nearer both are "
        "to 100 %, the less its targets add to the labels."
    )


def _row(evidence: Evidence, taught: Taught, both: list[Score], name: str) -> dict[str, Any]:
    given = taught.students.get(name)
    return {
        "variant": name,
        "size": given.get("size", DASH) if given else DASH,
        "start": given.get("start", DASH) if given else DASH,
        "targets": _targets(given) if given else DASH,
        "flops": ratio(_flops(evidence, taught, name)),
        "scores": [_scored(evidence, taught, score, name) for score in both],
    }


def _targets(given: dict[str, Any]) -> str:
    """What a student learns from, in words."""
    alpha = given.get("alpha")
    if alpha is None:  # a run of an earlier version
        return DASH
    told = [f"{100 * share:g} % {name}" for name, share in (("ensemble", alpha), ("labels", 1 - alpha)) if share]
    return ", ".join(told).removeprefix("100 % ")


def _flops(evidence: Evidence, taught: Taught, name: str) -> float:
    """Of one example, in units of the mean member's."""
    whole = float(np.mean([evidence.by_name[member]["flops_per_example"] for member in taught.members]))
    return float(evidence.by_name[name]["flops_per_example"]) / whole if whole else float("nan")


def _scored(evidence: Evidence, taught: Taught, score: Score, name: str) -> tuple[str, str, str]:
    """The score, the share of the ensemble's gain that is kept, and what soft targets gain over labels alone."""
    values = evidence.scored(name, score.name)
    if values is None:
        return DASH, DASH, DASH
    shown = level(evidence, score, name)
    if values.shape[1] < 2:
        return shown, DASH, DASH
    gain = _over_labels(evidence, taught, score, name)
    over = in_units(gain.value, gain.low, gain.high, score.unit) if gain else DASH
    kept = gains_of(values_of(evidence, score), score, name, taught.ensemble, taught.members).interval
    return shown, _share(kept) if kept else UNCERTAIN, over


def _share(kept: stats.Interval) -> str:
    """62 % [48 .. 75]; none where it is below the mean member."""
    if kept.high < 0:
        return "none"
    return f"{100 * kept.value:.0f} % [{100 * kept.low:.0f} .. {100 * kept.high:.0f}]".replace("-", MINUS)


def _over_labels(evidence: Evidence, taught: Taught, score: Score, name: str) -> stats.Interval | None:
    """What a student with soft targets gains over one that differs in nothing else but learns from labels alone."""
    if not taught.students.get(name, {}).get("alpha"):
        return None
    others = {each: given for each, given in taught.students.items() if given.get("alpha") == 0}
    same = _but_targets(taught.students[name])
    twin = next((each for each, given in others.items() if _but_targets(given) == same), None)
    if twin is None or any(evidence.scored(each, score.name) is None for each in (name, twin)):
        return None
    values = values_of(evidence, score)
    return over_seeds(score.better * minus(values(name), values(twin)))


def _but_targets(given: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key not in OF_TARGETS}
