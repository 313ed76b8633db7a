"""Evaluating built variants on what is scored: outcomes of every example, and the costs that are counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from harness.cost import counters
from harness.evaluate import metrics, predictions, scores
from harness.evaluate.predictions import CachedPredictions
from harness.lm import evaluation
from harness.lm.evaluation import Unscored
from harness.store import Key, Store, write_json
from harness.tasks.answers import Aggregate
from harness.tasks.images import Task as ImageTask
from harness.tasks.text import TextTask
from harness.tasks.views import VIEWS
from harness.types import Combination

MAKERS = (__name__, *predictions.MAKERS)
"""The code behind an evaluation."""


@dataclass(frozen=True)
class Evaluation:
    """What a variant says on test."""

    log_probs: np.ndarray
    """[N, C] of what is scored."""
    calls: np.ndarray
    """[N, parts]: how often each of its parts ran for each of these, as ``Combination.run`` says."""
    record: dict[str, Any]
    """What evaluating found out besides, as JSON values."""
    measures: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Other values [N], one for each document or NaN, by name."""
    aggregates: Mapping[str, Aggregate] = field(default_factory=dict)
    """Scores of whole tasks that are no means over documents, by name."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """lm-eval's score of every task and metric."""


def evaluate_on_images(
    combination: Combination, task: ImageTask, seen: ImageTask, cached: CachedPredictions
) -> Evaluation:
    """Test, and where the pool was trained on views (its task is ``seen``), each of these as well."""
    on_test, on_heldout = (predictions.run(combination, split, cached) for split in (task.test, task.heldout))
    calibrated = scores.calibrated(on_test.log_probs, task.test.labels, on_heldout.log_probs, task.heldout.labels)
    measures = {}
    for view in seen.views:
        rows, split = VIEWS[view].rows(task.test.labels), seen.seen(task.test, view)
        if len(rows):  # --limit may leave none
            found = predictions.run(combination, split, cached).log_probs
            examples = metrics.per_example(found.numpy(), split.labels.numpy())
            right = np.full(len(task.test), np.nan)  # a view that leaves an image out says nothing of it
            right[rows.numpy()] = examples["correct"]
            measures[f"accuracy/{view}"] = right
    record = {"combine_seconds": on_test.combine_seconds + on_heldout.combine_seconds, **calibrated}
    return Evaluation(on_test.log_probs.numpy(), on_test.calls.numpy(), record, measures)


def evaluate_on_text(combinations: Sequence[Combination], task: TextTask) -> list[Evaluation | Unscored]:
    """Language models on lm-eval's tasks, or why one has no answers: all of them in one pass over shared models."""
    scored = evaluation.score_combinations(combinations, task)
    record = {"combine_seconds": scored.combine_seconds / len(combinations), "pass": scored.record}
    return [
        answers
        if isinstance(answers, Unscored)
        else Evaluation(
            answers.log_probs, calls, record, evaluation.measures(answers), answers.aggregates, answers.scores
        )
        for answers, calls in zip(scored.answers, scored.calls, strict=True)
    ]


def write_evaluation(
    store: Store, key: Key, combination: Combination, found: Evaluation, labels: Tensor, few: Tensor | None
) -> None:
    """Write the outcomes of every example and the counted costs.

    Args:
        store: where to.
        key: of the artefact.
        combination: what was evaluated.
        found: what it said.
        labels: [N] the truth.
        few: inputs [B, ...] to count the FLOPs of; None where it cannot be run on the task's inputs.

    Raises:
        scores.NonFinite: a label was given no probability at all.
    """
    examples = metrics.per_example(found.log_probs, labels.numpy())
    scores.check_finite(examples)
    scores.check_numbers(found.scores)
    counts = counters.counted(combination, torch.from_numpy(found.calls), few)
    with store.write(key) as folder:
        columns = {str(name): torch.tensor(examples[name].to_numpy()) for name in examples}
        columns["calls"] = torch.from_numpy(found.calls).sum(dim=1)
        save_file(columns, folder / "examples.safetensors")
        measures = {name: torch.tensor(values) for name, values in found.measures.items()}
        save_file(measures, folder / "measures.safetensors")
        draws = {name: torch.tensor(each.draws) for name, each in found.aggregates.items()}
        save_file(draws, folder / "draws.safetensors")
        of_tasks = {name: {"value": each.value, "n": each.n} for name, each in found.aggregates.items()}
        write_json(folder / "evaluation.json", {**found.record, **counts, "aggregates": of_tasks})
