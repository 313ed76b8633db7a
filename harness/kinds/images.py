"""Images with one label each: networks of ours, whose predictions are made once and shared by all output rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from harness.evaluate import outcomes, predictions
from harness.evaluate.predictions import CachedPredictions
from harness.kinds.inputs import evaluate_on_inputs
from harness.kinds.kind import Evaluation, Kind, kind
from harness.models import image_networks
from harness.store import Store
from harness.tasks import images
from harness.tasks.images import ImageReference, Task
from harness.tasks.views import VIEWS
from harness.types import Combination, Unscored


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

    def refer(self, given: Any, suite: str, folder: Path, tokenizer: str | None) -> ImageReference:
        return ImageReference(given)

    def folded(self, reference: ImageReference, fold: int) -> ImageReference:
        return replace(reference, fold=fold)

    def load(self, reference: ImageReference, store: Store, limit: int | None) -> Task:
        return images.load(reference.name, store, limit, reference.fold)

    def evaluate(
        self, combinations: Sequence[Combination], task: Task, seen: Task, cached: CachedPredictions
    ) -> list[Evaluation | Unscored]:
        """Where the pool was trained on views, as its task says (``seen``), on each of these as well."""
        found: list[Evaluation | Unscored] = []
        for combination in combinations:
            views = {view: _on_view(combination, view, task, seen, cached) for view in seen.views}
            measures = {f"accuracy/{view}": right for view, right in views.items() if not np.isnan(right).all()}
            found.append(replace(evaluate_on_inputs(combination, task, cached), measures=measures))
        return found


def _on_view(combination: Combination, view: str, task: Task, seen: Task, cached: CachedPredictions) -> np.ndarray:
    """Of each test image [N], whether it is right as a view shows it; NaN where the view leaves it out."""
    rows, split = VIEWS[view].rows(task.test.labels), seen.seen(task.test, view)
    right = np.full(len(task.test), np.nan)
    if len(rows):  # --limit may leave none
        log_probs = predictions.run(combination, split, cached).log_probs
        right[rows.numpy()] = outcomes.per_example(log_probs.numpy(), split.labels.numpy())["correct"]
    return right


kind(Images())
