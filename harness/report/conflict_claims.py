"""Claims about members that contradict each other: what the two rules for combining probabilities make of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.report.claim import Claim, Test, decided, untested
from harness.report.evidence import Evidence
from harness.report.lookup import in_pool, variants_of
from harness.results.evidence import mean_over_seeds

VETO, BELIEF = 0.01, 0.5
ALMOST_NONE, CHANCE = 1e-4, 0.1
"""Probabilities of the label: one member gives less than the first of a pair, and another more than the second."""


@dataclass(frozen=True)
class Conflict:
    """Two rules over the same members, and the outcomes on which these contradict each other."""

    linear: str
    log_linear: str
    given: dict[str, np.ndarray]
    """By rule, the probability of the label, [seeds, examples]."""
    chosen: np.ndarray
    """Which outcomes, [seeds, examples]."""
    undone: int
    """On how many others no label may be left that all members accept, so that the vetoes cancel."""

    def of(self, values: np.ndarray) -> np.ndarray:
        """Values [seeds, examples] of these outcomes, NaN of the others; without the seeds that have none."""
        return np.where(self.chosen, values, np.nan)[self.chosen.any(axis=1)]

    @property
    def note(self) -> str:
        """How many outcomes these are, and what the rules make of them."""
        kept, left = (mean_over_seeds(self.of(self.given[rule])) for rule in (self.linear, self.log_linear))
        note = (
            f"{int(self.chosen.sum())} outcomes of {self.linear} and {self.log_linear} of which the latter chooses a "
            f"label that all members accept; they give the true one {kept:.3f} and {left:.3f}"
        )
        return note + (f"; on {self.undone} others vetoes may cancel" if self.undone else "")


def or_and(evidence: Evidence) -> Claim:
    """One member believes in the label and another vetoes it."""
    claim = "Linear acts as OR, log-linear as AND"
    found = _conflict(evidence, VETO, BELIEF)
    if isinstance(found, str):
        return untested(claim, found)
    statistic = (
        f"probability of the label under linear minus log-linear where one member gives > {BELIEF} and another < {VETO}"
    )
    values = found.of(found.given[found.linear] - found.given[found.log_linear])
    return decided(claim, statistic, values, unit="probability", note=found.note)


def zeros(evidence: Evidence) -> Claim:
    """One member gives the label nearly no probability: under linear the others' is what it keeps."""
    claim = "A label that one member rules out keeps probability under linear and loses it under log-linear"
    found = _conflict(evidence, ALMOST_NONE, CHANCE)
    if isinstance(found, str):
        return untested(claim, found)
    statistic = (
        f"share of the labels that one member gives < {ALMOST_NONE:g} and another > {CHANCE:g} to which log-linear "
        "gives less than half of what linear does; held above one half"
    )
    lost = found.of((found.given[found.log_linear] < found.given[found.linear] / 2).astype(np.float64))
    return decided(claim, statistic, lost, Test(bar=0.5), "share", found.note)


def _conflict(evidence: Evidence, low: float, high: float) -> Conflict | str:
    """The members with the most such outcomes, or why there are none.

    Only those count where log-linear chooses a label that no member gives less than ``low``. Otherwise there may be no
    label that all accept, such as between experts for different labels, and normalising undoes the vetoes. The members'
    probabilities of the choice are not known, but their geometric mean is: its probability times the normaliser, which
    the label's gives. From ``low`` to the power 1 / M up, none of M members can be below ``low``.
    """
    every = [_conflict_of(evidence, *rules, low, high) for rules in _rules(evidence)]
    if not every:
        return "needs results of linear, log_linear and every member of theirs"
    most = max(every, key=lambda conflict: int(conflict.chosen.sum()))
    if most.chosen.any():
        return most
    return f"there is no example whose label one member gives > {high:g} and another < {low:g} while all accept another"


def _conflict_of(
    evidence: Evidence, linear: str, log_linear: str, members: list[str], low: float, high: float
) -> Conflict:
    given = {name: np.exp(-evidence.values(name, "nll").astype(np.float64)) for name in (linear, log_linear)}
    losses = np.stack([evidence.values(name, "nll") for name in members]).astype(np.float64)  # [M, seeds, examples]
    conflict = (losses.max(axis=0) > -np.log(low)) & (losses.min(axis=0) < -np.log(high))
    normaliser = np.exp(-losses.mean(axis=0)) / np.maximum(given[log_linear], np.finfo(np.float64).tiny)
    chosen = conflict & (evidence.values(log_linear, "confidence") * normaliser >= low ** (1 / len(members)))
    return Conflict(linear, log_linear, given, chosen, int(conflict.sum() - chosen.sum()))


def _rules(evidence: Evidence) -> Iterator[tuple[str, str, list[str]]]:
    """Linear and log-linear variants of the same members with equal weights, and these members."""
    for pool, record in evidence.run.record["pools"].items():
        uniform: dict[str, dict[tuple[int, ...], str]] = {}
        for rule in ("linear", "log_linear"):
            uniform[rule] = {
                tuple(range(record["members"]) if positions is None else positions): name
                for name, given, positions in variants_of(evidence, pool, rule)
                if given["weights"] == "uniform"
            }
        for positions, name in uniform["linear"].items():
            members = [in_pool(pool, f"member/index={i}") for i in positions]
            other = uniform["log_linear"].get(positions)
            if other and len(members) > 1 and evidence.has(name, other, *members):
                yield name, other, members
