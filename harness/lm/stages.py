"""Staged systems on multiple choice: for every document the stage that answers, by the probabilities of its choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from harness.systems.staged import Staged
from harness.tasks.answers import choice_log_probs
from harness.tasks.questions import CHOICES, WRITTEN, Questions

Said = list[tuple[float, bool]]
"""What one system says of all instances: log-likelihood, and whether it is the first choice."""


def why_no_choice(questions: Questions) -> str | None:
    """Why a staged system cannot decide on these tasks; None if it can (``writing`` has what is written)."""
    decided = (CHOICES, WRITTEN)
    other = next((name for name, task in questions.tasks.items() if task.OUTPUT_TYPE not in decided), None)
    if other is None:
        return None
    kind = questions.tasks[other].OUTPUT_TYPE
    asked = f"task '{other}' is of type {kind}, without any"
    return f"a staged system decides by the choices of a document or by what it writes, and {asked}"


def choose(
    system: Staged, stages: Sequence[Said], models: Mapping[str, Said], questions: Questions
) -> tuple[Said, np.ndarray]:
    """What a staged system says of all instances, and how often each of its parts ran for each document.

    A stage is asked by the normalised probabilities of a document's choices; all that is asked about the document, also
    its choices without the context, is then answered by the stage where it stops.

    Args:
        system: the staged system.
        stages: what each of its stages says.
        models: what every part says, by digest, that runs before the last stage.
        questions: with multiple choice, and no log-likelihoods besides (``why_no_choice``).

    Returns:
        One answer an instance, and calls [documents, parts].
    """
    of_stages = [_choices(questions, said) for said in stages]
    of_models = {digest: _choices(questions, said) for digest, said in models.items()}

    def answer(stage: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        found = of_stages[stage][rows]
        if stage == len(system.accept):
            return found, found.unsqueeze(0)
        return found, torch.stack([of_models[part.digest][rows] for part in system.parts_until(stage)])

    _, stops = system.go_through(len(of_stages[0]), answer)
    documents = _documents(questions)
    chosen = stops[[documents[id(instance)] for instance in questions.instances]].tolist()
    return [stages[stage][i] for i, stage in enumerate(chosen)], system.ran[stops].numpy()


def _choices(questions: Questions, said: Said) -> Tensor:
    """Log-probabilities [documents, C] in float64."""
    return torch.from_numpy(choice_log_probs(questions, [value for value, _ in said]))


def _documents(questions: Questions) -> dict[int, int]:
    """The document, by position among all, that an instance is about."""
    asked = [question for name, _ in questions.of_kind(CHOICES) for question in questions.of[name]]
    return {id(request): row for row, question in enumerate(asked) for request in question.requests}
