"""Pipelines stage by stage: what each said of every example, and which of them the errors are due to.

Errors are told apart by oracle substitution: with the true results in the place of the first stages' own, what is
still wrong is due to the stages that follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from harness.evaluate.predictions import predict
from harness.models.classifiers import texts_of
from harness.results.other_columns import BY_STAGE
from harness.says import Says
from harness.systems.pipeline import Pipeline, Trace, as_one
from harness.types import Combination, Part, Split

ERROR, WORDS = (f"{column.name}/" for column in BY_STAGE)
"""What the names of measures begin with."""


def names_in(measures: Mapping[str, Any]) -> list[str]:
    """Those of some measures, by name, that are of test examples by stage."""
    return [name for name in measures if name.startswith((ERROR, WORDS))]


class Recorded(Combination):
    """A pipeline that keeps what its stages said of every batch."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.details = pipeline, pipeline.details
        self.traces: list[Trace] = []

    def parts(self) -> Sequence[Part]:
        return self.pipeline.parts()

    @property
    def says(self) -> Says:
        return self.pipeline.says

    def log_probs(self, batch: Tensor) -> Tensor:
        return self.run(batch)[0]

    def run(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        found = self.pipeline.trace(batch)
        self.traces.append(found)
        return found.log_probs, found.calls

    def save(self, folder: Any) -> None:
        self.pipeline.save(folder)


@dataclass(frozen=True)
class ByStage:
    """What is known of a pipeline on a split besides its answers."""

    intermediate: pd.DataFrame
    """A row for each example and stage (``results.columns.INTERMEDIATE_COLUMNS``, but for the variant and seed)."""
    measures: Mapping[str, np.ndarray]
    """[N] each, by name: ``error/1 m0`` is how much likelier an error is with the stage than with the truth in its
    place (1, 0 or -1 of one example; they add up to the error of the whole), ``words_right/...`` the share of the
    words of the true text that a text has, in order."""
    failures: Mapping[str, int]
    """By stage, how many examples it could not take."""


def by_stage(pipeline: Pipeline, traces: Sequence[Trace], split: Split, names: Sequence[str]) -> ByStage:
    """Examine what a pipeline said of a split.

    Args:
        pipeline: that was run.
        traces: of the split's batches, in order.
        split: with its true texts (``Split.clean``), if errors and words are to be known.
        names: of the labels; their numbers where there are none.
    """
    told = [names[row] if names else str(row) for row in range(pipeline.classes)]
    said = torch.cat([trace.log_probs.cpu() for trace in traces]).argmax(dim=-1)
    failed = [fault for trace in traces for fault in trace.failed]
    given = [as_one(texts) for texts in texts_of(split.inputs)]
    labels = [told[label] for label in split.labels.tolist()]
    clean = None if split.clean is None else [as_one(texts) for texts in texts_of(split.clean)]
    truths = {"text": clean, "class": labels}
    results = [[each for trace in traces for each in trace.results[k]] for k in range(len(pipeline.stages))]
    kinds = [stage.kind for stage in pipeline.stages]
    rows = _rows(
        split.ids,
        [*pipeline.titles],
        [*kinds, "class"],
        [*results, [told[row] for row in said.tolist()]],
        [*(truths[kind] for kind in kinds), labels],
        failed,
    )
    first = _rows(split.ids, ["0 given"], ["text"], [given], [clean], [None] * len(given))
    measures = _errors(pipeline, said == split.labels, split, [truths[kind] for kind in kinds])
    if clean is not None:
        measures[f"{WORDS}0 given"] = _words_right(clean, given)
        for title, kind, texts in zip(pipeline.titles, kinds, results, strict=False):
            if kind == "text":
                measures[f"{WORDS}{title}"] = _words_right(clean, texts)
    counts = pd.Series([pipeline.titles[fault[0]] for fault in failed if fault], dtype=str).value_counts()
    return ByStage(pd.concat([first, rows], ignore_index=True), measures, {str(k): int(v) for k, v in counts.items()})


def _rows(
    ids: Sequence[str],
    titles: Sequence[str],
    kinds: Sequence[str],
    values: Sequence[Sequence[str]],
    truths: Sequence[Sequence[str] | None],
    failed: Sequence[tuple[int, str] | None],
) -> pd.DataFrame:
    tables = []
    for number, (title, kind, said, truth) in enumerate(zip(titles, kinds, values, truths, strict=True)):
        stage, _, name = title.partition(" ")
        faults = [fault[1] if fault and fault[0] == number else "" for fault in failed]
        of_stage = {"example_id": list(ids), "stage": int(stage), "name": name, "kind": kind, "value": list(said)}
        tables.append(pd.DataFrame({**of_stage, "truth": truth, "failed": faults}))
    return pd.concat(tables, ignore_index=True)


def _errors(
    pipeline: Pipeline, right: Tensor, split: Split, truths: Sequence[Sequence[str] | None]
) -> dict[str, np.ndarray]:
    """Of each stage its part in the error of each example; nothing where the truth of a stage is not known."""
    known = [truth for truth in truths if truth is not None]
    if len(known) < len(truths):
        return {}
    correct = [right.double().numpy()]
    for count in range(1, len(known) + 1):
        true = iter(range(len(split.inputs)))

        def substituted(batch: Tensor, count: int = count, true: Any = true) -> Tensor:
            rows = [next(true) for _ in range(len(batch))]
            return pipeline.trace(batch, [[truth[row] for row in rows] for truth in known[:count]]).log_probs

        correct.append((predict(substituted, split).argmax(dim=-1) == split.labels).double().numpy())
    correct.append(np.ones(len(right)))
    steps = zip(pipeline.titles, correct, correct[1:], strict=False)
    return {f"{ERROR}{title}": after - before for title, before, after in steps}


def _words_right(truths: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """Of each text the share of the true text's words that it has, in their order; NaN where that has none."""
    return np.array([_common(truth.split(), text.split()) for truth, text in zip(truths, texts, strict=True)])


def _common(truth: Sequence[str], words: Sequence[str]) -> float:
    """The length of the longest common subsequence, as a share of the first sequence."""
    if not truth:
        return float("nan")
    row = [0] * (len(words) + 1)
    for one in truth:
        corner = 0
        for place, other in enumerate(words, start=1):
            corner, row[place] = row[place], corner + 1 if one == other else max(row[place], row[place - 1])
    return row[-1] / len(truth)
