"""Scoring a combination on test's own inputs, for kinds of task where these are what is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from harness.evaluate import outcomes, predictions, scores
from harness.evaluate.expert_use import use_on_inputs
from harness.evaluate.halving import HALVED
from harness.evaluate.predictions import CachedPredictions
from harness.kinds.kind import Evaluation
from harness.tasks.labelled import LabelledTask
from harness.tasks.task import Task
from harness.types import Combination, Unscored


def evaluate_on_inputs(combination: Combination, task: Task, cached: CachedPredictions) -> Evaluation:
    """What a combination says on test, and how well a temperature that is fitted on held-out calibrates it.

    Where it gives answers without probabilities there is nothing to calibrate.
    """
    on_test, on_heldout = (predictions.run(combination, split, cached) for split in (task.test, task.heldout))
    calibrated = {}
    if combination.says == "probabilities":
        calibrated = scores.calibrated(on_test.log_probs, task.test.labels, on_heldout.log_probs, task.heldout.labels)
    record = {"combine_seconds": on_test.combine_seconds + on_heldout.combine_seconds, **calibrated}
    if (batch := min(on_test.batch, on_heldout.batch)) < task.test.batch:
        record[HALVED] = batch
    record |= use_on_inputs(combination, task.test)
    return Evaluation(on_test.log_probs.numpy(), on_test.calls.numpy(), record)


def evaluate_on_views(
    combinations: Sequence[Combination], task: LabelledTask, seen: LabelledTask, cached: CachedPredictions
) -> list[Evaluation | Unscored]:
    """Each by itself; where the pool was trained on views, as its task says (``seen``), on each of these as well."""
    found: list[Evaluation | Unscored] = []
    for combination in combinations:
        views = {view: _on_view(combination, view, task, seen, cached) for view in seen.views}
        measures = {f"accuracy/{view}": right for view, right in views.items() if not np.isnan(right).all()}
        found.append(replace(evaluate_on_inputs(combination, task, cached), measures=measures))
    return found


def _on_view(
    combination: Combination, view: str, task: LabelledTask, seen: LabelledTask, cached: CachedPredictions
) -> np.ndarray:
    """Of each test example [N], whether it is right as a view shows it; NaN where the view leaves it out."""
    rows, split = task.known_views[view].rows(task.test.labels), seen.seen(task.test, view)
    right = np.full(len(task.test), np.nan)
    if len(rows):  # --limit may leave none
        log_probs = predictions.run(combination, split, cached).log_probs
        right[rows.numpy()] = outcomes.per_example(log_probs.numpy(), split.labels.numpy())["correct"]
    return right
