"""The interface of a dispatch path: one decorated function in one file that runs routed rows through experts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from harness.moe.experts import Experts, StackedExperts
from harness.moe.routing import Routing
from harness.registry import DISPATCHES

Run = Callable[[Experts, Tensor, Routing], Tensor]
"""Experts, rows [N, inputs] and their routing to ``sum_j weights[n, j] E_chosen[n, j](x_n)`` [N, outputs]."""
Unavailable = Callable[[Experts, Tensor], "str | None"]


@dataclass(frozen=True)
class Dispatch:
    """One declared path."""

    name: str
    """What a user names it by."""
    summary: str
    run: Run
    """Differentiable by the rows, the experts' parameters and the weights; the result has the rows' type."""
    unavailable: Unavailable
    """Why it cannot run these experts on rows of this device, type and shape; None if it can."""
    every_expert: bool
    """Whether every expert runs on every row."""
    module: str


def dispatch(
    name: str, *, summary: str, unavailable: Unavailable = lambda experts, x: None, every_expert: bool = False
) -> Callable[[Run], Dispatch]:
    """Declare ``function(experts, rows, routing) -> outputs`` as a path; its name then stands for the declaration."""

    def register(function: Run) -> Dispatch:
        path = Dispatch(name, summary, function, unavailable, every_expert, function.__module__)
        DISPATCHES.add(path)
        return path

    return register


def needs_stacked(experts: Experts) -> str | None:
    """Why a path that runs all experts in one product cannot run these."""
    if isinstance(experts, StackedExperts):
        return None
    return f"{type(experts).__name__} are modules of their own, without stacked weights"
