"""Staged systems on multiple choice: for every document the stage that answers, by the probabilities of its choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from harness.systems.cascade_routing import CascadeRouting
from harness.systems.routed import Routed
from harness.systems.routers import Logistic, Neighbours, Router, classes_known, evidence_of
from harness.systems.staged import Staged
from harness.tasks.answers import choice_log_probs
from harness.tasks.questions import CHOICES, Questions
from harness.types import Unscored

Said = list[tuple[float, bool]]
"""What one system says of all instances: log-likelihood, and whether it is the first choice."""
Chosen = list[tuple[float, bool] | None]
"""The same of a system that decides by choices; None of what is asked about documents that have none."""
WITHOUT = "it decides by the choices of a document, and these have none"
"""Why such a system is not applicable to a task."""


def choose_stage(
    system: Staged, stages: Sequence[Said], models: Mapping[str, Said], questions: Questions
) -> tuple[Chosen, np.ndarray]:
    """What a staged system says of all instances, and how often each of its parts ran for each document.

    A stage is asked by the normalised probabilities of a document's choices; all that is asked about the document, also
    its choices without the context, is then answered by the stage where it stops.

    Args:
        system: the staged system.
        stages: what each of its stages says.
        models: what every part says, by digest, that runs before the last stage.
        questions: some of them, or none, with multiple choice.

    Returns:
        One answer an instance, and calls [documents, parts].
    """
    of_stages = [choices_of(questions, said) for said in stages]
    of_models = {digest: choices_of(questions, said) for digest, said in models.items()}

    def answer(stage: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        found = of_stages[stage][rows]
        if stage == len(system.accept):
            return found, found.unsqueeze(0)
        return found, torch.stack([of_models[part.digest][rows] for part in system.parts_until(stage)])

    _, stops = system.go_through(len(of_stages[0]), answer)
    return _of_documents(questions, stages, stops), system.ran[stops].numpy()


def choose_member(system: Routed, members: Sequence[Said], questions: Questions) -> tuple[Chosen, np.ndarray]:
    """As ``choose_stage``, of a router that picks one of its members for each document by the choices of the one asked.

    Raises:
        Unscored: for documents with more choices than those that the router was fitted on.
    """
    assert system.asked is not None
    said = _padded(choices_of(questions, members[system.asked]), system.router)
    picked = system.choose(system.router(evidence_of(said)))  # [documents, M]
    calls = picked.long()
    calls[:, system.asked] = 1
    return _of_documents(questions, members, picked.long().argmax(dim=1)), calls.numpy()


def choose_route(system: CascadeRouting, stages: Sequence[Said], questions: Questions) -> tuple[Chosen, np.ndarray]:
    """As ``choose_stage``, of stages between which a router chooses by the choices of the stage before.

    Raises:
        Unscored: as ``choose_member``.
    """
    of_stages = [choices_of(questions, said) for said in stages]
    known = [_padded(said, router) for said, router in zip(of_stages, system.routers, strict=False)]

    def expect(stage: int, rows: Tensor, found: Tensor) -> Tensor:
        return system.routers[stage](evidence_of(known[stage][rows]))

    _, calls, asked = system.go_through(len(of_stages[0]), lambda stage, rows: of_stages[stage][rows], expect)
    last = (asked * torch.arange(len(stages))).amax(dim=1)
    return _of_documents(questions, stages, last), calls.numpy()


def _padded(said: Tensor, router: Router) -> Tensor:
    """Log-probabilities [documents, C] with as many choices as a router was fitted on; missing ones have 0."""
    assert isinstance(router, Logistic | Neighbours)
    known = classes_known(router)
    if said.shape[1] > known:
        raise Unscored(f"documents have up to {said.shape[1]} choices, the router's held-out ones up to {known}")
    return torch.nn.functional.pad(said, (0, known - said.shape[1]), value=-torch.inf)


def choices_of(questions: Questions, said: Said) -> Tensor:
    """Log-probabilities [documents, C] in float64."""
    return torch.from_numpy(choice_log_probs(questions, [value for value, _ in said]))


def _of_documents(questions: Questions, systems: Sequence[Said], chosen: Tensor) -> Chosen:
    """For every instance what that system says of it which is chosen for its document, [documents]."""
    documents = _documents(questions)
    rows = [documents.get(id(instance)) for instance in questions.instances]
    each = chosen.tolist()
    return [None if row is None else systems[each[row]][i] for i, row in enumerate(rows)]


def _documents(questions: Questions) -> dict[int, int]:
    """The document, by position among all, that an instance is about; only those with choices are documents here."""
    asked = [question for name, _ in questions.of_kind(CHOICES) for question in questions.of[name]]
    return {id(request): row for row, question in enumerate(asked) for request in question.requests}
