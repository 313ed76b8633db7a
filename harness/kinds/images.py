"""Images with one label each: networks of ours, whose predictions are made once and shared by all output rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from harness.evaluate.predictions import CachedPredictions
from harness.kinds.inputs import evaluate_on_views
from harness.kinds.kind import Evaluation, Kind, kind
from harness.models import image_networks
from harness.models.own_networks import own_network
from harness.store import Store
from harness.tasks import images
from harness.tasks.images import ImageReference
from harness.tasks.labelled import LabelledTask
from harness.types import Combination, Unscored


class Images(Kind[ImageReference, LabelledTask]):
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

    @property
    def loaded(self) -> Mapping[str, Callable[..., nn.Module]]:
        return {"image_module": own_network}

    def refer(self, given: Any, suite: str, folder: Path, tokenizer: str | None) -> ImageReference:
        return ImageReference(given)

    def folded(self, reference: ImageReference, fold: int) -> ImageReference:
        return replace(reference, fold=fold)

    def load(self, reference: ImageReference, store: Store, limit: int | None) -> LabelledTask:
        return images.load(reference.name, store, limit, reference.fold)

    def evaluate(
        self, combinations: Sequence[Combination], task: LabelledTask, seen: LabelledTask, cached: CachedPredictions
    ) -> list[Evaluation | Unscored]:
        return evaluate_on_views(combinations, task, seen, cached)


kind(Images())
