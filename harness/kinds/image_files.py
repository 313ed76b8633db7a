"""A user's images with one label each: classifiers from folders, each with its own image processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from harness.evaluate.predictions import CachedPredictions
from harness.kinds.inputs import evaluate_on_views
from harness.kinds.kind import Evaluation, Kind, kind
from harness.models import classifiers, configuration
from harness.models.heads import IMAGE
from harness.models.own_networks import own_network
from harness.store import Store
from harness.strict.fields import Strict
from harness.tasks import own_images
from harness.tasks.labelled import SPLITS, LabelledTask
from harness.tasks.own_images import ImagesReference
from harness.types import Architecture, Combination, Unscored


class FilesOfImages(Strict):
    """Files of images with one label each."""

    train: str
    heldout: str
    test: str
    image: str = "image"
    label: str = "label"


class OwnImages(Strict):
    """A user's own images; paths are relative to the suite file."""

    images: FilesOfImages


class ImageFiles(Kind[ImagesReference, LabelledTask]):
    """Each combination is scored by itself: those of one pool share the predictions of its members."""

    name = own_images.KIND
    models = "an image classifier"
    key = "images"
    spec = OwnImages
    head = IMAGE
    preload = ("transformers.models.auto.modeling_auto",)
    seconds_per_input = 0.02
    logits = staticmethod(classifiers.logits_of_images)
    schedule = staticmethod(classifiers.schedule)

    @property
    def networks(self) -> Mapping[str, Callable[..., nn.Module]]:
        return {}

    @property
    def loaded(self) -> Mapping[str, Callable[..., nn.Module]]:
        return {IMAGE.name: configuration.image_classifier, "image_file_module": own_network}

    def refer(self, given: Any, suite: str, folder: Path, tokenizer: str | None) -> ImagesReference:
        asked = given.images
        files = {split: str(folder / Path(getattr(asked, split)).expanduser()) for split in SPLITS}
        return ImagesReference(suite, **files, image=asked.image, label=asked.label)

    def load(self, reference: ImagesReference, store: Store, limit: int | None) -> LabelledTask:
        return own_images.load(reference, store, limit)

    def why_not(self, architecture: Architecture, task: LabelledTask) -> str | None:
        """Never: that its labels are the task's was checked when the folder was read."""
        return None

    def evaluate(
        self, combinations: Sequence[Combination], task: LabelledTask, seen: LabelledTask, cached: CachedPredictions
    ) -> list[Evaluation | Unscored]:
        return evaluate_on_views(combinations, task, seen, cached)


kind(ImageFiles())
