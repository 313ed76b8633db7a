"""Systems that answer in writing only: they have no probabilities of classes, and nothing to say of windows of text."""

from __future__ import annotations

from typing import NoReturn

from torch import Tensor

from harness.types import Combination, NotApplicable

ONLY_WRITES = "it answers in writing, and neither choices nor windows of text ask for that"


class WrittenAnswers(Combination):
    """What is asked is a prompt, and ``lm.writing`` runs it; subclasses say how."""

    def log_probs(self, batch: Tensor) -> NoReturn:
        raise NotApplicable(ONLY_WRITES)

    def run(self, batch: Tensor) -> NoReturn:
        raise NotApplicable(ONLY_WRITES)
