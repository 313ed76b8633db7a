"""Claims about scores: decided by the score that the suite's verdicts go by, with another one told beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.display.formats import number
from harness.evaluate.decisions import LOSS_MARGIN, SHARE_MARGIN
from harness.report.claim import Claim, Test, decided, in_size, of_these, untested
from harness.report.evidence import Evidence
from harness.results.columns import paired
from harness.results.evidence import mean_over_seeds

UNITS = {"nats": "nats", "bits": "bits per byte"}

Values = Callable[[str], np.ndarray]
"""From a variant's name to its values of one score, [seeds, units]."""


@dataclass(frozen=True)
class Score:
    """A score that variants are compared by."""

    name: str
    better: int
    """1 where higher is better, -1 where lower is."""
    unit: str

    @property
    def words(self) -> str:
        return paired()[self.name].title


def score_named(name: str) -> Score:
    """One of the scores that have a value of each example or document."""
    column = paired()[name]
    return Score(name, column.sign, "points" if column.is_share else UNITS.get(column.unit, name))


def margin(unit: str, level: float) -> float:
    """Within which scores at this level are as good as equal: half a point, 1 % of a loss."""
    return SHARE_MARGIN if unit == "points" else LOSS_MARGIN * abs(level)


def scores(evidence: Evidence, *names: str) -> list[Score]:
    """The score that decides, the suite's first, and one beside it: the suite's second, or NLL, accuracy, Brier score.

    A score that some of these variants lack does not count; where it decides and is infinite, see ``infinite``.
    """
    wanted = [*evidence.run.scores_of_suite, "nll", "accuracy", "brier"]
    known = paired().keys()
    found = [
        each for each in dict.fromkeys(wanted)
        if each in known and all(evidence.scored(name, each) is not None for name in names)
    ]  # fmt: skip
    return [score_named(name) for name in found[:2]]


def infinite(evidence: Evidence, claim: str, *names: str, by: str | None = None) -> Claim | None:
    """The claim as not tested where the score that decides is infinite."""
    score = by or evidence.score.name
    lost = [name for name in dict.fromkeys(names) if score in paired() and evidence.is_infinite(name, score)]
    return untested(claim, f"the {paired()[score].title} of {', '.join(lost)} is infinite") if lost else None


def compared(
    evidence: Evidence,
    claim: str,
    what: str,
    names: Sequence[str],
    table: Callable[[Values], np.ndarray],
    *,
    wanted: int = 1,
    allowed: float = 0.0,
    contrast: bool = True,
    note: str = "",
    by: str | None = None,
) -> Claim:
    """Whether a difference of scores is for the better; not tested where the score that decides is infinite.

    Args:
        evidence: of the run.
        claim: as a sentence.
        what: is subtracted from what, in words.
        names: the variants that are needed; margins go by the level of the last.
        table: from the scores' values to the differences, [seeds, units].
        wanted: 1 for the better, -1 for the worse.
        allowed: so many margins may be missed: the claim is one of no loss.
        contrast: whether it is not held where the difference is within the margin.
        note: what else to tell.
        by: a score, instead of the suite's.
    """
    if lost := infinite(evidence, claim, *names, by=by):
        return lost
    both = [score_named(by), score_named("accuracy")] if by else scores(evidence, *names)
    values = {score.name: values_of(evidence, score) for score in both}
    claims = []
    for score in both:
        given = values[score.name]
        least = margin(score.unit, mean_over_seeds(given(names[-1])))
        sign = wanted * score.better
        test = Test(sign, bar=-sign * allowed * least, alike=least if contrast and not allowed else None)
        within = f"; {in_size(allowed * least, score.unit)} may be lost" if allowed else ""
        unit = "" if score.unit == score.words else f", {score.unit}"
        statistic = f"{score.words} of {what}{unit}{within}"
        claims.append(decided(claim, statistic, table(given), test, score.unit))
    first, told = claims[0], ""
    for score, second in zip(both[1:], claims[1:], strict=True):
        unit = "" if second.unit in ("points", score.name) else f" {second.unit}"
        told = f"by {score.words} {second.shown}{unit}, {second.verdict}"
    return replace(first, note="; ".join(filter(None, (note, told, first.note))))


def values_of(evidence: Evidence, score: Score) -> Values:
    """A score's values by variant: of those only that ``scores`` was asked about."""

    def values(name: str) -> np.ndarray:
        table = evidence.scored(name, score.name)
        assert table is not None
        return table

    return values


def minus(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Differences; infinite where one of them is, so that no example is left out unseen."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(one) | np.isinf(other), np.inf, one - other)


def mean_of(given: Values, names: Sequence[str]) -> np.ndarray:
    """The mean of variants' values."""
    return np.mean([given(name) for name in names], axis=0)


def level(evidence: Evidence, score: Score, name: str) -> str:
    """A variant's score, as a reader sees it."""
    table = evidence.scored(name, score.name)
    assert table is not None
    value = of_these(table).value
    return f"{100 * value:.2f} %" if score.unit == "points" else number(value)
