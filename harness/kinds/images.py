"""Images with one label each: networks of ours, whose predictions are made once and shared by all output rules."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from harness.evaluate import metrics, scores
from harness.evaluate.predictions import CachedPredictions, predict
from harness.kinds.kind import Evaluation, Kind, Unscored, kind
from harness.models import image_networks
from harness.store import Store
from harness.systems.systems import OutputCombination
from harness.tasks import images
from harness.tasks.images import ImageReference, Task
from harness.tasks.views import VIEWS
from harness.types import Combination, Split


class Images(Kind[ImageReference, Task]):
    """Each combination is scored by itself: those of one pool share the predictions of its members."""

    name = images.KIND
    models = "a network for images"
    seconds_per_input = 2.5e-4

    @property
    def tasks(self) -> Mapping[str, str]:
        return {name: f"{spec.title}; from {spec.source}" for name, spec in images.TASKS.items()}

    @property
    def networks(self) -> Mapping[str, Callable[..., nn.Module]]:
        return image_networks.NETWORKS

    def refer(self, given: Any, suite: str, folder: Path, models: Sequence[str]) -> ImageReference:
        return ImageReference(given)

    def load(self, reference: ImageReference, store: Store, limit: int | None) -> Task:
        return images.load(reference.name, store, limit)

    def evaluate(
        self, combinations: Sequence[Combination], task: Task, seen: Task, cached: CachedPredictions
    ) -> list[Evaluation | Unscored]:
        return [_evaluated(combination, task, seen, cached) for combination in combinations]


def _evaluated(combination: Combination, task: Task, seen: Task, cached: CachedPredictions) -> Evaluation:
    """Test, and where the pool was trained on views (its task is ``seen``), each of these as well."""
    (on_test, seconds), (on_heldout, more) = (_run(combination, split, cached) for split in (task.test, task.heldout))
    calibrated = scores.calibrated(on_test, task.test.labels, on_heldout, task.heldout.labels)
    measures = {}
    for view in seen.views:
        rows, split = VIEWS[view].rows(task.test.labels), seen.seen(task.test, view)
        if len(rows):  # --limit may leave none
            examples = metrics.per_example(_run(combination, split, cached)[0].numpy(), split.labels.numpy())
            right = np.full(len(task.test), np.nan)  # a view that leaves an image out says nothing of it
            right[rows.numpy()] = examples["correct"]
            measures[f"accuracy/{view}"] = right
    calls = np.ones((len(on_test), len(combination.parts())))
    return Evaluation(on_test.numpy(), calls, {"combine_seconds": seconds + more, **calibrated}, measures)


def _run(combination: Combination, split: Split, cached: CachedPredictions) -> tuple[Tensor, float]:
    """Predictions [N, C], and the seconds that went into combining those of the members."""
    if not isinstance(combination, OutputCombination):
        return predict(combination.log_probs, split), 0.0
    stacked = cached.stacked(combination.parts(), split)
    begin = time.perf_counter()
    return combination.combine(stacked), time.perf_counter() - begin


kind(Images())
