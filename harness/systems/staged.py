"""Staged systems: stages in order, and an example goes on to the next one only where a stage does not accept it."""

from __future__ import annotations

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


class Staged(Combination):
    """Combinations asked one after another: the first that accepts an example answers it, and the last accepts all.

    A later stage runs on what is left only, and a model that an earlier one has run there is not run again. A stage
    that says NaN has the last word too: what is broken is to be seen, and not covered by the next.

    Args:
        stages: output rules and single models (``Combination.replays``), at least one.
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
        self.stages, self.accept, self.details = tuple(stages), tuple(accept), dict(details or {})
        self.settings = tuple(settings)
        if len(self.accept) != len(self.stages) - 1:
            raise ValueError(f"{len(self.stages)} stages need {len(self.stages) - 1} acceptances, not {len(accept)}")
        for stage in self.stages:
            if isinstance(stage, Staged) or not stage.replays:
                raise ValueError(f"a stage is an output rule or one model, not {type(stage).__name__}")
        self._parts: dict[str, Part] = {}  # a model that several stages have is one
        for part in (part for stage in self.stages for part in stage.parts()):
            self._parts.setdefault(part.digest, part)
        self._of_stages = [[part.digest for part in stage.parts()] for stage in self.stages]
        runs = [torch.tensor([digest in of for digest in self._parts]) for of in self._of_stages]
        self.ran = torch.stack(runs).long().cumsum(dim=0).clamp(max=1)
        """[stages, parts]: 1 for what has run once a stage has answered, and 0."""

    def parts(self) -> Sequence[Part]:
        return tuple(self._parts.values())

    def parts_until(self, stage: int) -> list[Part]:
        """The models that have run once a stage has answered."""
        return [part for part, ran in zip(self.parts(), self.ran[stage].tolist(), strict=True) if ran]

    def dial(self) -> Sequence[Staged]:
        return [Staged(self.stages, accept) for accept in self.settings]

    @property
    def replays(self) -> bool:
        later = [part for part in self.parts() if part.digest not in self._of_stages[0]]
        return all(part.by_row for part in later)

    def log_probs(self, batch: Tensor) -> Tensor:
        return self.run(batch)[0]

    def run(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        return self._go_through(len(batch), _Live(batch))

    def replay(self, predictions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        by_part = dict(zip(self._parts, predictions, strict=True))
        return self._go_through(len(predictions[0]), lambda part, rows: by_part[part.digest][rows])

    def _go_through(self, count: int, said: Said) -> tuple[Tensor, Tensor]:
        def answer(stage: int, rows: Tensor) -> tuple[Tensor, Tensor]:
            of_stage = [said(self._parts[digest], rows) for digest in self._of_stages[stage]]
            found = self.stages[stage].replay(of_stage)[0]
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
        for number, stage in enumerate(self.stages):
            (folder / stage_folder(number)).mkdir()
            stage.save(folder / stage_folder(number))


class _Live:
    """Runs parts on rows of a batch [B, ...], each part once; it is asked for ever fewer of the rows."""

    def __init__(self, batch: Tensor) -> None:
        self.batch = batch
        self.known: dict[str, Tensor] = {}

    def __call__(self, part: Part, rows: Tensor) -> Tensor:
        whole = len(rows) == len(self.batch)
        if part.digest not in self.known:
            found = part.log_probs(self.batch if whole else self.batch[rows])
            if len(found) != len(rows):
                raise NotApplicable(UNDECIDED)
            self.known[part.digest] = found if whole else self._spread(found, rows)
        known = self.known[part.digest]
        return known if whole else known[rows.to(known.device)]

    def _spread(self, found: Tensor, rows: Tensor) -> Tensor:
        """Values [n, C] of rows as those of the whole batch, NaN where there are none."""
        return found.new_full((len(self.batch), found.shape[-1]), torch.nan).index_copy(0, rows.to(found.device), found)


UNDECIDED = "a staged system decides by the choices of a document, and windows of text have none"


def stage_folder(number: int) -> str:
    """Where a stage is saved, below the folder of its system."""
    return f"stage-{number}"
