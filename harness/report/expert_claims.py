"""Claims about experts that are made of dense models, in the first pool that has what they are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.report.by_score import compared, minus
from harness.report.claim import Claim
from harness.report.evidence import Evidence
from harness.report.lookup import variants_of

OF_EXPERTS = ("experts", "k", "noise", "balance")
"""Parameters of upcycling that say nothing of a dense model's training."""


def upcycled(evidence: Evidence) -> list[Claim]:
    """Where a suite has a dense model that is trained further as a mixture is: Komatsuzaki et al. 2023."""
    claim = "Upcycled experts beat the dense model that is trained on as long"
    return [_compared(evidence, claim, *pair) for pair in list(_trained_alike(evidence))[:1]]


def merged(evidence: Evidence) -> list[Claim]:
    """Where a suite has the soup of the same fine-tunes, with a trained router if there is one."""
    claim = "Merged experts beat the soup of the same fine-tunes"
    return [_compared(evidence, claim, *pair) for pair in list(_of_the_same(evidence))[:1]]


def _trained_alike(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Mixtures, each with the dense model that differs in nothing but its one expert."""
    for pool in evidence.pools:
        every = [(name, given) for name, given, _ in variants_of(evidence, pool, "upcycle")]
        dense = [(name, _training(given)) for name, given in every if given.get("experts") == 1]
        for mixture, given in every:
            for alone, training in dense:
                if given.get("experts") != 1 and _training(given) == training and evidence.has(mixture, alone):
                    yield mixture, alone


def _training(given: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key not in OF_EXPERTS}


def _of_the_same(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Mixtures, each with the soup of its members; those with trained routers first."""
    for pool in evidence.pools:
        soups = [(name, positions) for name, _, positions in variants_of(evidence, pool, "uniform_soup")]
        mixtures = list(variants_of(evidence, pool, "expert_merge"))
        for mixture, _, members in sorted(mixtures, key=lambda each: each[1].get("gate") != "trained"):
            for soup, positions in soups:
                if positions == members and evidence.has(mixture, soup):
                    yield mixture, soup


def _compared(evidence: Evidence, claim: str, mixture: str, other: str) -> Claim:
    share = evidence.by_name[mixture]["flops_per_example"] / evidence.by_name[other]["flops_per_example"]
    note = f"at {share:.2f} times the FLOPs"
    return compared(evidence, claim, f"{mixture} minus {other}", [mixture, other],
                    lambda v: minus(v(mixture), v(other)), note=note)  # fmt: skip
