"""Greedy ensemble selection with replacement on held-out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from harness.methods.method import method
from harness.systems.fitting import accuracy, nll, select_greedily
from harness.systems.rules import Linear
from harness.systems.systems import OutputCombination, member_parts
from harness.types import Ingredients


@method(
    "greedy_ensemble",
    family="output",
    summary="Add, with replacement, the member that most improves held-out; the counts are linear weights.",
    paper="Caruana et al. 2004, doi:10.1145/1015330.1015432",
    words="greedy ensemble of {members}",
    needs={"members", "heldout"},
    identical_members_unchanged=True,
    small=({"rounds": 4}, {"rounds": 4, "metric": "accuracy"}),
)
def greedy_ensemble(
    ingredients: Ingredients,
    *,
    rounds: Annotated[int, Field(ge=1)] = 20,
    metric: Literal["nll", "accuracy"] = "nll",
) -> OutputCombination:
    parts = member_parts(ingredients)
    by_name = sorted(range(len(parts)), key=lambda k: parts[k].name)  # equal gains: the first name, in any pool order
    parts = [parts[k] for k in by_name]
    stacked, labels = ingredients.stacked(parts, ingredients.heldout), ingredients.heldout.labels
    score: Callable[[torch.Tensor, torch.Tensor], Any] = accuracy
    if metric == "nll":  # it depends on the true labels' probabilities alone: one column instead of all classes
        stacked = stacked.gather(-1, labels.expand(len(stacked), -1).unsqueeze(-1))
        labels = torch.zeros_like(labels)
        score = _likelihood
    counts, scores = select_greedily(stacked, labels, rounds=rounds, score=score)
    curve = scores if metric == "accuracy" else [loglik if possible == 1 else -math.inf for possible, loglik in scores]
    chosen = [k for k, count in enumerate(counts) if count]
    weights = torch.tensor([counts[k] for k in chosen], dtype=torch.float64) / sum(counts)
    details = {
        "counts": {parts[k].name: counts[k] for k in chosen},
        "curve": [{"round": i + 1, "heldout_score": s} for i, s in enumerate(curve)],
    }
    return OutputCombination([parts[k] for k in chosen], Linear(weights), details)


def _likelihood(log_probs: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """The share of labels that are possible, then their mean log-likelihood: so infinite losses are told apart."""
    possible = ~log_probs.isneginf().squeeze(-1)
    if not possible.any():
        return 0.0, 0.0
    return float(possible.double().mean()), -nll(log_probs[possible], labels[possible])
