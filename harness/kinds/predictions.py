"""Predictions from elsewhere: labels by id, and models that are known by what they said of each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field
from torch import nn

from harness.cost.own import own_costs
from harness.evaluate.predictions import CachedPredictions
from harness.kinds.inputs import evaluate_on_inputs
from harness.kinds.kind import Evaluation, Kind, kind
from harness.models import lookup
from harness.results.other_columns import OWN_COST
from harness.store import Store
from harness.strict.fields import Strict
from harness.tasks import table
from harness.tasks.table import LabelsReference, LabelsTask
from harness.types import Combination, Unscored

Column = Annotated[str, Field(min_length=1)]


class LabelFiles(Strict):
    """CSV or Parquet files with a row for each example, relative to the suite file."""

    heldout: Annotated[str, Field(min_length=1)]
    test: Annotated[str, Field(min_length=1)]
    train: Annotated[str, Field(min_length=1)] | None = None
    id: Column = "id"
    label: Annotated[
        Column | None, Field(description="the column of labels; 'label', where the files have it: without labels, "
                                         "members say of each row whether they are right")
    ] = None  # fmt: skip
    cluster: Annotated[Column | None, Field(description="a column: test rows of one value of it count as one")] = None
    classes: Annotated[
        list[str | int] | None, Field(min_length=2, description="their names, where some of them have no row")
    ] = None


class Labels(Strict):
    """Labels by id, for pools of predictions."""

    table: LabelFiles


class Predictions(Kind[LabelsReference, LabelsTask]):
    """Each combination is scored by itself; nothing is run, so what running takes is not known."""

    name = table.KIND
    models = "predictions"
    key = "table"
    spec = Labels
    seconds_per_input = 1e-7
    why_no_costs = "its members are known by their predictions only, so nothing is run"

    @property
    def networks(self) -> Mapping[str, Callable[..., nn.Module]]:
        return {}

    @property
    def loaded(self) -> Mapping[str, Callable[..., nn.Module]]:
        return {lookup.NAME: lookup.no_network}

    def refer(self, given: Labels, suite: str, folder: Path, tokenizer: str | None) -> LabelsReference:
        said = given.table
        named = {"train": said.train, "heldout": said.heldout, "test": said.test}
        files = tuple((split, str(folder / Path(path).expanduser())) for split, path in named.items() if path)
        classes = None if said.classes is None else tuple(map(str, said.classes))
        return LabelsReference(suite, files, said.id, said.label, said.cluster, classes)

    def rendered(
        self, reference: LabelsReference, store: Store, limit: int | None, allow_code: bool
    ) -> LabelsReference:
        return table.rendered(reference, store)

    def load(self, reference: LabelsReference, store: Store, limit: int | None) -> LabelsTask:
        return table.load(reference, store, limit)

    def evaluate(
        self, combinations: Sequence[Combination], task: LabelsTask, seen: LabelsTask, cached: CachedPredictions
    ) -> list[Evaluation | Unscored]:
        """Besides, what the members' own files say that the answers cost, over the calls of each example."""
        found: list[Evaluation | Unscored] = []
        for combination in combinations:
            evaluation = evaluate_on_inputs(combination, task, cached)
            found.append(replace(evaluation, measures=_paid(combination, task, evaluation.calls)))
        return found


def _paid(combination: Combination, task: LabelsTask, calls: np.ndarray) -> dict[str, np.ndarray]:
    """What each test row [N] cost, by name: of the costs that all parts bring, those of the calls [N, parts]."""
    of_parts = own_costs(combination.parts(), task.test.inputs)
    return {f"{OWN_COST.name}/{name}": (calls * each.numpy()).sum(axis=1) for name, each in of_parts.items()}


kind(Predictions())
