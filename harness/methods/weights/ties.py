"""TIES merging: trim, elect a sign, combine what agrees; in the dialect of whichever implementation is wanted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from harness.evaluate.heldout import Score, predict_module, score
from harness.evaluate.scaling import Scale, add_task_vector
from harness.merging.guards import check_mergeable, warnings_of
from harness.merging.sparsify import Keep
from harness.merging.task_vectors import Sparsify, TaskVectors, merge_task_vectors, trimming
from harness.merging.ties import DIALECTS, Dialect, Divide, Elect, Scope, Weigh, ZeroSum
from harness.methods.method import method
from harness.methods.weights.task_arithmetic import GRID as SUM_GRID
from harness.systems.systems import SingleModel
from harness.types import Ingredients, Split

GRID = [step / 10 for step in range(1, 21)]
DENSITIES = [0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0]


@method(
    "ties",
    family="weights",
    summary="Task vectors trimmed to their largest entries, a sign elected per weight, the agreeing ones averaged.",
    paper="Yadav et al. 2023, arXiv:2306.01708",
    words="TIES merge of {members}{scale}",
    told={"scale": {"heldout": " at the scale that is best on held-out"}},
    needs={"members", "base", "train", "heldout"},
    order_sensitive=lambda parameters: parameters["weights"] is not None,
    small=(
        {"density": 0.2},
        {"density": 0.5, "scale": "heldout"},
        {"density": "heldout", "scale": "heldout_per_layer"},
        {"dialect": "paper"},
        {"dialect": "mergekit", "weights": [1.0, 0.5, 0.25]},
        {"dialect": "peft", "weights": [1.0, -0.5, 0.25], "elect": "count"},
    ),
    seconds=3,
)
def ties(
    ingredients: Ingredients,
    *,
    density: Literal["heldout"] | Annotated[float, Field(gt=0, le=1)] = 0.2,
    scale: Scale = 1.0,
    dialect: Literal["stockpot", "paper", "mergekit", "peft"] = "stockpot",
    weights: list[float] | None = None,
    scope: Scope | None = None,
    keep: Keep | None = None,
    elect: Elect | None = None,
    zero_sum: ZeroSum | None = None,
    weigh: Weigh | None = None,
    divide: Divide | None = None,
) -> SingleModel:
    """A dialect is a preset of the six parameters after ``weights`` (``merging.ties.Dialect``); each given one wins.

    ``density: heldout`` tries 0.05 .. 1, each with the scale that is given or, where that is searched, its own best.
    """
    rules = DIALECTS[dialect].changed(
        scope=scope, keep=keep, elect=elect, zero_sum=zero_sum, weigh=weigh, divide=divide
    )

    vectors = vectors_of(ingredients)

    def merged(share: float) -> SingleModel:
        sparsify = trimming(vectors, share, rules)
        return merge_sparse(ingredients, vectors, sparsify, rules, weights, scale, remarks=rules.trim_remarks)

    return best_density(merged, ingredients.heldout) if isinstance(density, str) else merged(density)


def vectors_of(ingredients: Ingredients) -> TaskVectors:
    """The task vectors of the members; ``NotApplicable`` where they are not of one network."""
    base, members = ingredients.base, ingredients.members
    check_mergeable((base, *members))
    return TaskVectors(base.weights, [member.weights for member in members])


def best_density(merged: Callable[[float], SingleModel], heldout: Split) -> SingleModel:
    """The model merged at the density that scores best on held-out; the first of equals.

    The two costs in its details are those of all densities, and ``density_curve`` has each one's scale and scores.
    """
    begin, curve, evaluations = time.perf_counter(), [], 0
    best: tuple[Score, float, SingleModel] | None = None
    for density in DENSITIES:
        candidate = merged(density)
        heldout_score = score(predict_module(candidate.module, heldout), heldout.labels, heldout.criterion)
        accurate, likely = heldout_score if heldout.criterion == "accuracy" else heldout_score[::-1]
        point = {"density": density, "scale": candidate.details["scale"], "accuracy": accurate, "nll": -likely}
        curve.append(point)
        evaluations += 1 + candidate.details.get("heldout_evaluations", 0)
        if best is None or heldout_score > best[0]:
            best = heldout_score, density, candidate
    assert best is not None
    _, density, chosen = best
    cost = {"heldout_evaluations": evaluations, "search_seconds": time.perf_counter() - begin}
    chosen.details |= {"density": density, "density_curve": curve, **cost}
    return chosen


def merge_sparse(
    ingredients: Ingredients,
    vectors: TaskVectors,
    sparsify: Sparsify,
    dialect: Dialect,
    weights: Sequence[float] | None,
    scale: Scale,
    *,
    remarks: Sequence[str] = (),
    **details: Any,
) -> SingleModel:
    """The base with the members' task vectors, made sparse and merged, added to it ``scale`` times.

    ``remarks`` say what is surprising in the sparsifying; they and ``details`` are handed on to the report.

    A search over scales tries 0.1, 0.2 .. 2 or, of sums that are not divided, 0, 0.05 .. 1.
    """
    base, members = ingredients.base, ingredients.members
    merged = merge_task_vectors(vectors, sparsify, dialect, weights)
    grid = SUM_GRID if dialect.divide == "none" else GRID
    module, report = add_task_vector(ingredients, merged.tensors, scale, grid)
    report |= {"dialect": dialect.name, **details, "sign_conflict": merged.sign_conflict}
    if surprising := [*remarks, *dialect.merge_remarks]:
        report["remarks"] = "; ".join(surprising)
    report |= warnings_of(members, base)
    return SingleModel(base.architecture, module, report)
