"""Pipelines: what one stage makes of an example is what the next one is given, and every such result can be seen."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from harness.models import raw
from harness.models.classifiers import texts_of
from harness.models.forward import reader_of
from harness.says import Says
from harness.store import write_json
from harness.systems.mask_predict import mask_predict
from harness.systems.parts import MaskedPart, MemberPart
from harness.types import Combination, Part

FILE = "pipeline.json"
LAST = "last"
"""The folder of the last stage, below that of its pipeline."""
Texts = Sequence[str]
"""Of one example: a text, or a pair."""
FAULTS = (ValueError, TypeError, IndexError, KeyError)
"""What a network raises of an example that it cannot take; what a machine lacks is no fault of an example."""


@dataclass(frozen=True)
class Passed:
    """What a stage hands to the next one."""

    examples: list[Texts]
    results: list[str]
    """Of each example, what the stage itself says: the text, or the class."""
    calls: Tensor
    """How often its model ran, int64 [B]."""
    why_not: list[str]
    """Why it made nothing of an example, which is handed on as it was; empty where it did."""


class PassingStage(ABC):
    """A stage that is not the last one; subclasses are frozen dataclasses of a part and of settings."""

    kind: ClassVar[str]
    """What it hands on."""
    part: MemberPart

    @abstractmethod
    def __call__(self, examples: Sequence[Texts]) -> Passed:
        """What it makes of examples."""

    @abstractmethod
    def given(self, examples: Sequence[Texts], truth: Sequence[str]) -> list[Texts]:
        """What the next stage is given if this one is right: ``truth`` are its true results."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What it is made of again, with its part, as JSON values."""


@dataclass(frozen=True)
class Restore(PassingStage):
    """A masked language model that restores texts; both of a pair."""

    part: MaskedPart
    rounds: int = 0
    share: float = 0.0
    kind: ClassVar[str] = "text"

    def __call__(self, examples: Sequence[Texts]) -> Passed:
        flat = [text for texts in examples for text in texts]
        module = self.part.module
        made = mask_predict(module, reader_of(module), flat, self.rounds, self.share)
        found: list[Texts] = []
        calls, why_not, at = [], [], 0
        for texts in examples:
            places = slice(at, at + len(texts))
            at += len(texts)
            reasons = [reason for reason in made.why_not[places] if reason]
            found.append(texts if reasons else made.texts[places])
            calls.append(made.calls[places].sum())
            why_not.append(next(iter(reasons), ""))
        why_not = [no or ("it gives no text" if not any(text.strip() for text in texts) else "")
                   for no, texts in zip(why_not, found, strict=True)]  # fmt: skip
        return Passed(found, list(map(as_one, found)), torch.stack(calls), why_not)

    def given(self, examples: Sequence[Texts], truth: Sequence[str]) -> list[Texts]:
        return [json.loads(text) if len(texts) > 1 else [text] for texts, text in zip(examples, truth, strict=True)]

    def settings(self) -> dict[str, Any]:
        return {"kind": self.kind, "rounds": self.rounds, "share": self.share}


@dataclass(frozen=True)
class Name(PassingStage):
    """A classifier whose class, by its name, is the second text of a pair for the next stage."""

    part: MemberPart
    names: tuple[str, ...]
    kind: ClassVar[str] = "class"

    def __call__(self, examples: Sequence[Texts]) -> Passed:
        said, why_not = _one_by_one(self.part.log_probs, examples, len(self.names))
        results = [self.names[row] for row in said.argmax(dim=-1).tolist()]
        results = ["" if reason else result for result, reason in zip(results, why_not, strict=True)]
        passed = [texts if reason else [texts[0], result]
                  for texts, result, reason in zip(examples, results, why_not, strict=True)]  # fmt: skip
        return Passed(passed, results, torch.ones(len(examples), dtype=torch.int64), why_not)

    def given(self, examples: Sequence[Texts], truth: Sequence[str]) -> list[Texts]:
        return [[texts[0], name] for texts, name in zip(examples, truth, strict=True)]

    def settings(self) -> dict[str, Any]:
        return {"kind": self.kind, "names": list(self.names)}


@dataclass(frozen=True)
class Trace:
    """What every stage said of a batch."""

    log_probs: Tensor
    """[B, C] of the last."""
    calls: Tensor
    """As ``Combination.run``."""
    results: list[list[str]]
    """Of each stage but the last its result of each example."""
    failed: list[tuple[int, str] | None]
    """Of each example the number of the first stage that could not take it, from 0, and why."""


class Pipeline(Combination):
    """Stages in order; the last one says the class.

    An example that a stage cannot take has its failure recorded with the stage, and the run goes on: by default
    all classes are then equally probable, and ``unchanged`` hands the example on as it was.

    Args:
        stages: all but the last, one or more.
        last: what reads the result of the last of these.
        classes: how many the task has.
        otherwise: what becomes of an example that a stage cannot take.
        details: as every combination has them.
    """

    def __init__(
        self,
        stages: Sequence[PassingStage],
        last: Combination,
        classes: int,
        otherwise: Literal["uniform", "unchanged"] = "uniform",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self.stages, self.last, self.classes, self.otherwise = tuple(stages), last, classes, otherwise
        self.details = dict(details or {})
        everyone = [*(stage.part for stage in self.stages), *last.parts()]
        self._parts: dict[str, Part] = {part.digest: part for part in everyone}

    def parts(self) -> Sequence[Part]:
        return tuple(self._parts.values())

    @property
    def says(self) -> Says:
        return self.last.says

    @property
    def titles(self) -> list[str]:
        """What every stage is called in tables: its number from 1, and its model."""
        models = [stage.part.name for stage in self.stages]
        return [f"{number} {name}" for number, name in enumerate([*models, self.last.parts()[0].name], start=1)]

    def log_probs(self, batch: Tensor) -> Tensor:
        return self.trace(batch).log_probs

    def run(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        found = self.trace(batch)
        return found.log_probs, found.calls

    def trace(self, batch: Tensor, truth: Sequence[Sequence[str]] = ()) -> Trace:
        """Run every stage on a batch of raw examples [B, 3].

        Args:
            batch: the examples.
            truth: of the first stages, as many as there are lists, their true results: these stand in the place of
                what the stages say, and the stages do not run (oracle substitution).
        """
        examples: list[Texts] = [list(texts) for texts in texts_of(batch)]
        count = len(examples)
        failed: list[tuple[int, str] | None] = [None] * count
        calls = dict.fromkeys(self._parts, torch.zeros(count, dtype=torch.int64))
        results: list[list[str]] = []
        for number, stage in enumerate(self.stages):
            if number < len(truth):
                results.append(list(truth[number]))
                examples = stage.given(examples, truth[number])
                continue
            able = self._able(failed)
            passed = stage([examples[row] for row in able]) if able else None
            said = [""] * count
            ran = torch.zeros(count, dtype=torch.int64)
            for place, row in enumerate(able):
                assert passed is not None
                examples[row], said[row] = passed.examples[place], passed.results[place]
                ran[row] = passed.calls[place]
                if passed.why_not[place] and failed[row] is None:
                    failed[row] = number, passed.why_not[place]
            results.append(said)
            calls[stage.part.digest] = calls[stage.part.digest] + ran
        log_probs = self._last(batch, examples, failed, calls)
        return Trace(log_probs, torch.stack([calls[digest] for digest in self._parts], dim=1), results, failed)

    def _able(self, failed: Sequence[tuple[int, str] | None]) -> list[int]:
        """The examples that the next stage is given."""
        return [row for row, fault in enumerate(failed) if fault is None or self.otherwise == "unchanged"]

    def _last(
        self,
        batch: Tensor,
        examples: Sequence[Texts],
        failed: list[tuple[int, str] | None],
        calls: dict[str, Tensor],
    ) -> Tensor:
        able = self._able(failed)
        uniform = torch.full((len(examples), self.classes), 1 / self.classes).log()
        if not able:
            return uniform
        said, why_not = _one_by_one(self.last.log_probs, [examples[row] for row in able], self.classes)
        for part in self.last.parts():
            calls[part.digest] = calls[part.digest].index_add(0, torch.tensor(able), torch.ones(len(able)).long())
        for row, reason in zip(able, why_not, strict=True):
            if reason:
                failed[row] = failed[row] or (len(self.stages), reason)
        return uniform.to(said).index_copy(0, torch.tensor(able, device=said.device), said)

    def save(self, folder: Path) -> None:
        stages = [{"member": stage.part.digest, **stage.settings()} for stage in self.stages]
        write_json(folder / FILE, {"stages": stages, "classes": self.classes, "otherwise": self.otherwise})
        (folder / LAST).mkdir()
        self.last.save(folder / LAST)


def stage_of(saved: Mapping[str, Any], part: MemberPart) -> PassingStage:
    """A stage as ``save`` wrote it down, on its part."""
    if saved["kind"] == Restore.kind:
        assert isinstance(part, MaskedPart)
        return Restore(part, saved["rounds"], saved["share"])
    return Name(part, tuple(saved["names"]))


def as_one(texts: Texts) -> str:
    """The text of an example as one: of a pair, a JSON list."""
    return texts[0] if len(texts) == 1 else json.dumps(list(texts), ensure_ascii=False)


def _one_by_one(log_probs: Any, examples: Sequence[Texts], classes: int) -> tuple[Tensor, list[str]]:
    """What a model says of examples [n, C], together if it can; where one is too much for it, each by itself.

    Of an example that it cannot take all classes are equally probable, and there is a reason.
    """
    contents = [json.dumps(list(texts), ensure_ascii=False).encode() for texts in examples]
    try:
        with raw.held(contents) as batch:
            return log_probs(batch), [""] * len(contents)
    except FAULTS:
        found, why_not = [], []
        for content in contents:
            try:
                with raw.held([content]) as batch:
                    found.append(log_probs(batch))
                why_not.append("")
            except FAULTS as fault:
                found.append(torch.full((1, classes), 1 / classes).log())
                why_not.append(f"{type(fault).__name__}: {str(fault).splitlines()[0] if str(fault) else 'no words'}")
        return torch.cat([each.cpu() for each in found]), why_not
