"""A user's texts with one label each: classifiers from folders, each with its own tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field
from torch import nn

from harness.errors import BadInput
from harness.evaluate.by_stage import Recorded, by_stage
from harness.evaluate.predictions import CachedPredictions
from harness.kinds.inputs import evaluate_on_inputs, evaluate_on_views
from harness.kinds.kind import Evaluation, Kind, kind
from harness.models import classifiers, configuration
from harness.models.heads import MASKED, SEQUENCE
from harness.models.own_networks import own_network
from harness.models.readers import cut
from harness.store import Store
from harness.strict.fields import Strict, said_as, without_usual
from harness.systems.pipeline import Pipeline
from harness.tasks import own_files, own_texts
from harness.tasks.labelled import LabelledTask
from harness.tasks.own_files import Column, OwnFiles
from harness.tasks.own_texts import TextsReference
from harness.types import Architecture, Combination, Unscored


class TextFiles(OwnFiles):
    """Tables of texts with one label each."""

    text: Annotated[
        Column | Annotated[list[Column], Field(min_length=1, max_length=2)],
        said_as("a column, or two whose texts make a pair"),
        Field(description="the column of texts, or [premise, hypothesis]: two whose texts make a pair"),
    ] = "text"
    clean: Annotated[
        Column | Annotated[list[Column], Field(min_length=1, max_length=2)] | None,
        said_as("a column, or two of the texts of a pair"),
        Field(description="the column of the same texts uncorrupted, by which errors are told apart by stage; of a "
              "pair, two"),
    ] = None  # fmt: skip

    @pydantic.model_serializer(mode="wrap")
    def _as_before(self, handler: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_usual(self, handler(self), ("clean",))


class TextsFiles(Strict):
    """Your own texts: CSV, TSV, JSON lines, Parquet, Arrow or a folder that datasets saved; beside the suite file."""

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
        return {
            SEQUENCE.name: configuration.sequence_classifier,
            MASKED.name: configuration.masked_lm,
            "text_module": own_network,
        }

    def refer(self, given: Any, suite: str, folder: Path, tokenizer: str | None) -> TextsReference:
        columns, clean = (_as_tuple(each) for each in (given.texts.text, given.texts.clean))
        if clean and len(clean) != len(columns):
            raise BadInput(f"'text' is {len(columns)} columns and 'clean' {len(clean)}", hint="name one for each")
        return replace(own_files.refer(given.texts, columns, TextsReference, suite, folder), clean=clean)

    def folded(self, reference: TextsReference, fold: int) -> TextsReference:
        return own_files.folded(reference, fold)

    def rendered(self, reference: TextsReference, store: Store, limit: int | None, allow_code: bool) -> TextsReference:
        return own_texts.rendered(reference, store)

    def load(self, reference: TextsReference, store: Store, limit: int | None) -> LabelledTask:
        return own_texts.load(reference, store, limit)

    def why_not(self, architecture: Architecture, task: LabelledTask) -> str | None:
        """Never: that its labels are the task's was checked when the folder was read."""
        return None

    def remarks(self, architecture: Architecture, task: LabelledTask) -> list[str]:
        """How many texts are cut to what the model takes."""
        reader = configuration.reader_of(architecture)
        found = cut(classifiers.texts_of(task.test.inputs), reader) if reader else 0
        if reader is None or not found:
            return []
        if configuration.head_of(architecture) == MASKED:
            return [f"{found} of {len(task.test)} test texts are longer than the {reader.most} tokens that it takes"]
        return [f"{found} of {len(task.test)} test texts are cut to the {reader.most} tokens that it takes"]

    def evaluate(
        self, combinations: Sequence[Combination], task: LabelledTask, seen: LabelledTask, cached: CachedPredictions
    ) -> list[Evaluation | Unscored]:
        found: list[Evaluation | Unscored] = []
        for combination in combinations:
            if isinstance(combination, Pipeline):
                found.append(_evaluate_stages(combination, task, cached))
            else:
                found += evaluate_on_views([combination], task, seen, cached)
        return found


def _evaluate_stages(pipeline: Pipeline, task: LabelledTask, cached: CachedPredictions) -> Evaluation:
    """As every combination is scored, and what its stages said of the test examples."""
    recorded = Recorded(pipeline)
    evaluation = evaluate_on_inputs(recorded, task, cached)
    rows = accumulate(len(trace.log_probs) for trace in recorded.traces)
    of_test = recorded.traces[: 1 + list(rows).index(len(task.test.inputs))]  # it is run first
    stages = by_stage(pipeline, of_test, task.test, task.labels)
    record = {**evaluation.record, "failures": dict(stages.failures)}
    return replace(evaluation, record=record, measures=stages.measures, intermediate=stages.intermediate)


def _as_tuple(columns: str | Sequence[str] | None) -> tuple[str, ...]:
    return (columns,) if isinstance(columns, str) else tuple(columns or ())


kind(Texts())
