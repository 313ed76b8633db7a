"""Staged systems: stages in order, and an example goes on only where a stage before does not have the last word."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.store import write_json
from harness.systems.acceptance import Acceptance
from harness.types import Combination, NotApplicable, Part

FILE = "staged.json"
Answer = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""From a stage's number and rows [n]: what the stage says of these, [n, C], and what each model says of them that has
run so far, [M, n, C]."""
Said = Callable[[Part, Tensor], Tensor]
"""Log-probabilities [n, C] of a part on rows [n]."""


class InStages(Combination):
    """Combinations of which each example asks some, in their order; a model that has run for it is not run again.

    A stage that says NaN has the last word: what is broken is to be seen, and not covered by the next.

    Args:
        stages: output rules and single models (``Combination.replays``), at least one.
        details: as every combination has them.
    """

    def __init__(self, stages: Sequence[Combination], details: Mapping[str, Any] | None = None) -> None:
        self.stages, self.details = tuple(stages), dict(details or {})
        for stage in self.stages:
            if isinstance(stage, InStages) or not stage.replays:
                raise ValueError(f"a stage is an output rule or one model, not {type(stage).__name__}")
        self._parts: dict[str, Part] = {}  # a model that several stages have is one
        for part in (part for stage in self.stages for part in stage.parts()):
            self._parts.setdefault(part.digest, part)
        self._of_stages = [[part.digest for part in stage.parts()] for stage in self.stages]
        self.needs = torch.tensor([[digest in of for digest in self._parts] for of in self._of_stages])
        """[stages, parts], bool: the models that each stage is made of."""

    def parts(self) -> Sequence[Part]:
        return tuple(self._parts.values())

    @property
    def replays(self) -> bool:
        later = [part for part in self.parts() if part.digest not in self._of_stages[0]]
        return all(part.by_row for part in later)

    def log_probs(self, batch: Tensor) -> Tensor:
        return self.run(batch)[0]

    def run(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        return self._ask(len(batch), _Live(batch))

    def replay(self, predictions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        by_part = dict(zip(self._parts, predictions, strict=True))
        return self._ask(len(predictions[0]), lambda part, rows: by_part[part.digest][rows])

    @abstractmethod
    def _ask(self, count: int, said: Said) -> tuple[Tensor, Tensor]:
        """As ``run``, of so many examples."""

    def _said_by(self, stage: int, rows: Tensor, said: Said) -> Tensor:
        """What a stage says of rows [n], [n, C]."""
        return self.stages[stage].replay([said(self._parts[digest], rows) for digest in self._of_stages[stage]])[0]

    def _save_stages(self, folder: Path) -> None:
        for number, stage in enumerate(self.stages):
            (folder / stage_folder(number)).mkdir()
            stage.save(folder / stage_folder(number))


class Staged(InStages):
    """Stages one after another: the first that accepts an example answers it, and the last accepts all.

    A later stage runs on what is left only.

    Args:
        stages: as ``InStages`` has them.
        accept: of each stage but the last.
        details: as every combination has them.
        settings: what else each stage could accept by, for ``dial``; there are some where thresholds were fitted.
    """

    def __init__(
        self,
        stages: Sequence[Combination],
        accept: Sequence[Acceptance],
        details: Mapping[str, Any] | None = None,
        settings: Sequence[Sequence[Acceptance]] = (),
    ) -> None:
        super().__init__(stages, details)
        self.accept, self.settings = tuple(accept), tuple(settings)
        if len(self.accept) != len(self.stages) - 1:
            raise ValueError(f"{len(self.stages)} stages need {len(self.stages) - 1} acceptances, not {len(accept)}")
        self.ran = self.needs.long().cumsum(dim=0).clamp(max=1)
        """[stages, parts]: 1 for what has run once a stage has answered, and 0."""

    def parts_until(self, stage: int) -> list[Part]:
        """The models that have run once a stage has answered."""
        return [part for part, ran in zip(self.parts(), self.ran[stage].tolist(), strict=True) if ran]

    def dial(self) -> Sequence[Staged]:
        return [Staged(self.stages, accept) for accept in self.settings]

    def _ask(self, count: int, said: Said) -> tuple[Tensor, Tensor]:
        def answer(stage: int, rows: Tensor) -> tuple[Tensor, Tensor]:
            found = self._said_by(stage, rows, said)
            if stage == len(self.accept):  # nobody asks how the last one came to its answer
                return found, found.unsqueeze(0)
            return found, torch.stack([said(part, rows) for part in self.parts_until(stage)])

        log_probs, stops = self.go_through(count, answer)
        return log_probs, self.ran[stops]

    def go_through(self, count: int, answer: Answer) -> tuple[Tensor, Tensor]:
        """What is said of so many examples in the end, [count, C], and the number of the stage that says it [count]."""
        rows, stops = torch.arange(count), torch.zeros(count, dtype=torch.int64)
        log_probs, models = answer(0, rows)
        for stage, accept in enumerate(self.accept):
            here = log_probs[rows.to(log_probs.device)]
            rows = rows[~(accept(here, models) | here.isnan().any(dim=-1)).cpu()]
            if not len(rows):
                break
            found, models = answer(stage + 1, rows)
            log_probs = log_probs.index_copy(0, rows.to(log_probs.device), found.to(log_probs))
            stops[rows] = stage + 1
        return log_probs, stops

    def shares(self, calls: Tensor) -> list[dict[str, Any]]:
        """Of each stage the models that have run by then, and the share that it answers of examples with these calls.

        Args:
            calls: [N, parts].

        A stage that needs no model more than the one before is counted with that.
        """
        found: list[dict[str, Any]] = []
        for stage, ran in enumerate(self.ran):
            new = stage == 0 or not torch.equal(ran, self.ran[stage - 1])
            share = float((calls == ran).all(dim=1).double().mean()) if new else 0.0
            found.append({"models": [part.name for part in self.parts_until(stage)], "share": share})
        return found

    def save(self, folder: Path) -> None:
        accept, *settings = ([each.describe() for each in chosen] for chosen in (self.accept, *self.settings))
        write_json(folder / FILE, {"stages": len(self.stages), "accept": accept, "settings": settings})
        self._save_stages(folder)


class _Live:
    """Runs parts on rows of a batch [B, ...], each part at most once on a row."""

    def __init__(self, batch: Tensor) -> None:
        self.batch = batch
        self.known: dict[str, tuple[Tensor, Tensor]] = {}
        """Of each part what it says [B, C], NaN where it has not run, and where it has, bool [B]."""

    def __call__(self, part: Part, rows: Tensor) -> Tensor:
        known, ran = self.known.get(part.digest, (None, torch.zeros(len(self.batch), dtype=torch.bool)))
        missing = rows[~ran[rows]]
        if len(missing):
            whole = len(missing) == len(self.batch)
            found = part.log_probs(self.batch if whole else self.batch[missing])
            if len(found) != len(missing):
                raise NotApplicable(UNDECIDED)
            if known is None:
                known = found if whole else found.new_full((len(self.batch), found.shape[-1]), torch.nan)
            if not whole:
                known[missing.to(found.device)] = found
            ran[missing] = True
            self.known[part.digest] = known, ran
        assert known is not None
        return known if len(rows) == len(self.batch) else known[rows.to(known.device)]


UNDECIDED = "a staged system decides by the choices of a document, and windows of text have none"


def stage_folder(number: int) -> str:
    """Where a stage is saved, below the folder of its system."""
    return f"stage-{number}"
