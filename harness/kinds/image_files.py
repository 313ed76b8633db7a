"""A user's images with one label each: classifiers from folders, each with its own image processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import nn

from harness.evaluate.predictions import CachedPredictions
from harness.kinds.inputs import evaluate_on_views
from harness.kinds.kind import Evaluation, Kind, kind
from harness.models import classifiers, configuration
from harness.models.heads import IMAGE
from harness.models.own_networks import own_network
from harness.store import Store
from harness.strict.fields import Strict
from harness.tasks import own_files, own_images
from harness.tasks.labelled import LabelledTask
from harness.tasks.own_files import Column, OwnFiles
from harness.tasks.own_images import ImagesReference
from harness.types import Architecture, Combination, Unscored


class FilesOfImages(OwnFiles):
    """Folders with one folder of images for each class, or tables of images, or of their paths, with one label each."""

    image: Annotated[Column, Field(description="of tables, the column of images or of their paths")] = "image"


class OwnImages(Strict):
    """Your own images: folders by class, or a table of images or of their paths; beside the suite file."""

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
        return own_files.refer(given.images, (given.images.image,), ImagesReference, suite, folder)

    def folded(self, reference: ImagesReference, fold: int) -> ImagesReference:
        return own_files.folded(reference, fold)

    def rendered(
        self, reference: ImagesReference, store: Store, limit: int | None, allow_code: bool
    ) -> ImagesReference:
        return own_images.rendered(reference, store)

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
