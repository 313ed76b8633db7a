"""What every format is read into: members' rows and what is known of each question, joined by id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from harness.errors import BadInput

Form = Literal["probabilities", "correct"]
COST = "cost_"
SUMS = 1e-3
"""How far a row of probabilities may be from a sum of 1: the rounding of float16, of which some archives are."""


@dataclass(frozen=True)
class Imported:
    """Predictions of several members for the same questions.

    ``members`` holds one frame a member, all with the index of ``questions``: a column for each of ``classes`` with
    probabilities, or one column ``correct`` of bools; and ``cost_<name>`` columns.
    ``questions`` has columns that the source knows: ``label`` (a class's name), ``group`` (rows that ask the same:
    never parted, and counted as one), ``stratum`` (of which held-out and test get equal shares), ``split`` ("heldout"
    or "test", where the source says).
    """

    form: Form
    questions: pd.DataFrame
    members: Mapping[str, pd.DataFrame]
    classes: tuple[str, ...] = ()
    dropped: list[str] = field(default_factory=list)
    """What was left out and why, one line each."""
    notes: list[str] = field(default_factory=list)
    """What else the user should know."""

    @property
    def costs(self) -> list[str]:
        """The cost columns that every member has."""
        frames = list(self.members.values())
        return [c for c in frames[0].columns if c.startswith(COST) and all(c in frame for frame in frames)]

    def right(self, member: str) -> np.ndarray:
        """Whether a member's answer to each question is right, bool [N]: by its greatest probability, the first of
        equals."""
        frame = self.members[member]
        if self.form == "correct":
            return frame["correct"].to_numpy(bool)
        best = frame[list(self.classes)].to_numpy().argmax(axis=1)
        return np.asarray(self.classes)[best] == self.questions["label"].to_numpy()

    def outcomes(self) -> Imported:
        """The same without probabilities: which answers are right."""
        if self.form == "correct":
            return self
        members = {
            name: frame[self.costs].assign(correct=self.right(name)) for name, frame in self.members.items()
        }
        questions = self.questions.drop(columns="label")
        return Imported("correct", questions, members, (), self.dropped, self.notes)

    def check(self, place: str) -> None:
        """The laws that every source must keep; ``BadInput`` names the member and the row that breaks one."""
        if not len(self.questions) or not self.members:
            raise BadInput("no rows are left to import", place=place, hint="; ".join(self.dropped) or None)
        for name, frame in self.members.items():
            assert frame.index.equals(self.questions.index)
            for cost in self.costs:
                _refuse(~(frame[cost].to_numpy(float) >= 0), frame, place, f"member '{name}' has a {cost} that is no "
                                                                          "number from 0")  # fmt: skip
            if self.form == "probabilities":
                values, what = frame[list(self.classes)].to_numpy(float), f"member '{name}' has"
                _refuse(~np.isfinite(values).all(axis=1), frame, place, f"{what} values that are no numbers")
                _refuse((values < 0).any(axis=1), frame, place, f"{what} probabilities below 0")
                off = np.abs(values.sum(axis=1) - 1) > SUMS
                _refuse(off, frame, place, f"{what} probabilities that do not sum to 1")


def _refuse(bad: np.ndarray, frame: pd.DataFrame, place: str, problem: str) -> None:
    if bad.any():
        raise BadInput(f"{problem}: {bad.sum()} rows, first '{frame.index[bad.argmax()]}'", place=place)
