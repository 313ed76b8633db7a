"""The claims table: what the theory says, tested on this run alone; each claim is held, not held, or undecided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from harness.report import (
    averaging_claims,
    conflict_claims,
    curve_claims,
    ensemble_claims,
    expert_claims,
    one_task_claims,
    training_claims,
)
from harness.report.claim import Claim
from harness.report.domain_claims import domain_claims
from harness.report.evidence import Evidence
from harness.report.parts import DOMAINS, parts_of
from harness.report.view_claims import view_claims

CLAIMS: tuple[Callable[[Evidence], Claim | list[Claim]], ...] = (
    ensemble_claims.beats_best,
    ensemble_claims.beats_best_start,
    ensemble_claims.beats_mean,
    ensemble_claims.errors_differ,
    conflict_claims.or_and,
    conflict_claims.zeros,
    averaging_claims.tracks,
    averaging_claims.needs_start,
    averaging_claims.aligns,
    averaging_claims.greedy,
    averaging_claims.checkpoint_average,
    averaging_claims.checkpoint_ensemble,
    training_claims.bagging_is_no_better,
    training_claims.bagging_beats_mean,
    training_claims.dropout,
    training_claims.student,
    training_claims.small_student,
    training_claims.sparse,
    expert_claims.upcycled,
    expert_claims.merged,
    curve_claims.knows_when,
)

ONE_TASK: tuple[Callable[[Evidence], Claim], ...] = (
    one_task_claims.composes,
    one_task_claims.negates,
    one_task_claims.ties,
)
"""Where all members were tuned on the same task."""


def claims(evidence: Evidence) -> list[Claim]:
    """Every claim that the design names: those about task vectors as the suite's pools let them be tested."""
    of_task_vectors = [
        claim
        for parts in parts_of(evidence.run)
        for claim in (domain_claims if parts.kind is DOMAINS else view_claims)(evidence, parts)
    ]
    tested = (test(evidence) for test in CLAIMS)
    found = [claim for each in tested for claim in (each if isinstance(each, list) else [each])]
    return [*found, *(of_task_vectors or [claim(evidence) for claim in ONE_TASK])]


def as_json(found: list[Claim]) -> list[dict[str, Any]]:
    """The claims as JSON values."""
    return [asdict(claim) for claim in found]
