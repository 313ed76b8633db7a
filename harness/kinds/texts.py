"""A user's texts with one label each: classifiers from folders, each with its own tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from harness.evaluate.predictions import CachedPredictions
from harness.kinds.inputs import evaluate_on_views
from harness.kinds.kind import Evaluation, Kind, kind
from harness.models import classifiers, configuration
from harness.models.heads import SEQUENCE
from harness.models.own_networks import own_network
from harness.store import Store
from harness.strict.fields import Strict
from harness.tasks import own_texts
from harness.tasks.labelled import SPLITS, LabelledTask
from harness.tasks.own_texts import TextsReference
from harness.types import Architecture, Combination, Unscored


class TextFiles(Strict):
    """Files of texts with one label each."""

    train: str
    heldout: str
    test: str
    text: str | list[str] = "text"
    label: str = "label"


class TextsFiles(Strict):
    """A user's own texts; paths are relative to the suite file."""

    texts: TextFiles


class Texts(Kind[TextsReference, LabelledTask]):
    """Each combination is scored by itself: those of one pool share the predictions of its members."""

    name = own_texts.KIND
    models = "a text classifier"
    key = "texts"
    spec = TextsFiles
    head = SEQUENCE
    preload = ("transformers.models.auto.modeling_auto",)
    seconds_per_input = 0.02
    logits = staticmethod(classifiers.logits_of_texts)
    schedule = staticmethod(classifiers.schedule)

    @property
    def networks(self) -> Mapping[str, Callable[..., nn.Module]]:
        return {}

    @property
    def loaded(self) -> Mapping[str, Callable[..., nn.Module]]:
        return {SEQUENCE.name: configuration.sequence_classifier, "text_module": own_network}

    def refer(self, given: Any, suite: str, folder: Path, tokenizer: str | None) -> TextsReference:
        asked = given.texts
        files = {split: str(folder / Path(getattr(asked, split)).expanduser()) for split in SPLITS}
        columns = (asked.text,) if isinstance(asked.text, str) else tuple(asked.text)
        return TextsReference(suite, **files, text=columns, label=asked.label)

    def load(self, reference: TextsReference, store: Store, limit: int | None) -> LabelledTask:
        return own_texts.load(reference, store, limit)

    def why_not(self, architecture: Architecture, task: LabelledTask) -> str | None:
        """Never: that its labels are the task's was checked when the folder was read."""
        return None

    def evaluate(
        self, combinations: Sequence[Combination], task: LabelledTask, seen: LabelledTask, cached: CachedPredictions
    ) -> list[Evaluation | Unscored]:
        return evaluate_on_views(combinations, task, seen, cached)


kind(Texts())
