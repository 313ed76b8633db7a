"""Systems that answer in writing only: they have no probabilities of classes, and nothing to say of windows of text.

What is asked is a prompt, and ``lm.writing`` runs them: here is what they are, saved as JSON and found again by name.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from torch import Tensor

from harness.store import write_json
from harness.systems.parts import MemberPart
from harness.types import Combination, NotApplicable

WRITTEN = "written.json"
"""The file that says what such a system is."""
ONLY_WRITES = "it answers in writing, and neither choices nor windows of text ask for that"
SYSTEMS: dict[str, type[WrittenAnswers]] = {}


class WrittenAnswers(Combination):
    """Members that write; subclasses take their parts first, then what ``describe`` says, and register themselves."""

    def __init__(self, parts: Sequence[MemberPart], details: Mapping[str, Any] | None = None) -> None:
        self._parts, self.details = tuple(parts), dict(details or {})

    def __init_subclass__(cls) -> None:
        SYSTEMS[cls.__name__] = cls

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What it was made with besides its parts and details, as JSON values."""

    def parts(self) -> Sequence[MemberPart]:
        return self._parts

    def log_probs(self, batch: Tensor) -> NoReturn:
        raise NotApplicable(ONLY_WRITES)

    def run(self, batch: Tensor) -> NoReturn:
        raise NotApplicable(ONLY_WRITES)

    def save(self, folder: Path) -> None:
        references = [part.reference() for part in self._parts]
        write_json(folder / WRITTEN, {"kind": type(self).__name__, "parts": references, "with": self.describe()})


class SelfConsistency(WrittenAnswers):
    """Several answers that one member draws, of which one is given (Wang et al. 2022).

    Args:
        parts: the member.
        n: answers that are drawn.
        temperature: above 0.
        top_p: in (0, 1].
        by: majority, of what the task's first filter extracts, the first of equals; log_probability, the highest mean
            of an answer's tokens under the member itself, at temperature 1.
        seed: of what is drawn; answer k to a prompt is the same whatever ``n`` is.
    """

    def __init__(
        self,
        parts: Sequence[MemberPart],
        *,
        n: int,
        temperature: float,
        top_p: float,
        by: Literal["majority", "log_probability"],
        seed: int,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(parts, details)
        if len(self._parts) != 1:
            raise ValueError(f"one member draws all answers, not {len(self._parts)}")
        self.n, self.temperature, self.top_p, self.by, self.seed = n, temperature, top_p, by, seed

    def describe(self) -> dict[str, Any]:
        return {"n": self.n, "temperature": self.temperature, "top_p": self.top_p, "by": self.by, "seed": self.seed}


class Revision(WrittenAnswers):
    """A draft by one member, and rounds in which it, or another member, is shown the answer and writes it again.

    Args:
        parts: the member that drafts and, where another one revises, that one.
        rounds: at most; an answer is done when a round leaves it as it was.
        template: the prompt of a round, with ``{question}``, the task's own prompt, and ``{answer}``, the last one.
    """

    def __init__(
        self, parts: Sequence[MemberPart], *, rounds: int, template: str, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(parts, details)
        if not 1 <= len(self._parts) <= 2:
            raise ValueError(f"one member drafts and at most one other revises, not {len(self._parts)}")
        self.rounds, self.template = rounds, template

    @property
    def reviser(self) -> MemberPart:
        """The member that writes again."""
        return self._parts[-1]

    def prompt(self, question: str, answer: str) -> str:
        """What a round is asked; braces in a question or an answer are text."""
        given = {"{question}": question, "{answer}": answer}
        return re.sub(r"\{(question|answer)\}", lambda found: given[found.group()], self.template)

    def describe(self) -> dict[str, Any]:
        return {"rounds": self.rounds, "template": self.template}
