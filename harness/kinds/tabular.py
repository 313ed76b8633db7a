"""Rows of numbers with one label each: networks of ours, whose predictions are made once and shared by all rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from harness.evaluate.predictions import CachedPredictions
from harness.kinds.inputs import evaluate_on_views
from harness.kinds.kind import Evaluation, Kind, kind
from harness.models import tabular_networks
from harness.models.own_networks import own_network
from harness.store import Store
from harness.tasks import tabular
from harness.tasks.labelled import LabelledTask
from harness.tasks.tabular import TableReference
from harness.types import Combination, Unscored


class Tabular(Kind[TableReference, LabelledTask]):
    """Each combination is scored by itself: those of one pool share the predictions of its members."""

    name = tabular.KIND
    models = "a network for tables"
    seconds_per_input = 1e-5
    schedule = staticmethod(tabular_networks.table_schedule)

    @property
    def tasks(self) -> Mapping[str, str]:
        return {name: f"{spec.title}; from {spec.source}" for name, spec in tabular.TASKS.items()}

    @property
    def networks(self) -> Mapping[str, Callable[..., nn.Module]]:
        return tabular_networks.NETWORKS

    @property
    def loaded(self) -> Mapping[str, Callable[..., nn.Module]]:
        return {"table_module": own_network}

    def refer(self, given: Any, suite: str, folder: Path, tokenizer: str | None) -> TableReference:
        return TableReference(given)

    def folded(self, reference: TableReference, fold: int) -> TableReference:
        return replace(reference, fold=fold)

    def load(self, reference: TableReference, store: Store, limit: int | None) -> LabelledTask:
        return tabular.load(reference.name, store, limit, reference.fold)

    def evaluate(
        self, combinations: Sequence[Combination], task: LabelledTask, seen: LabelledTask, cached: CachedPredictions
    ) -> list[Evaluation | Unscored]:
        return evaluate_on_views(combinations, task, seen, cached)


kind(Tabular())
