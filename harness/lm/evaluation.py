"""Combinations of language models, scored by lm-eval's tasks: all of them in one pass over the models they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from harness.combinations import OutputCombination
from harness.lm.encoding import Encoder, requests_of
from harness.lm.forward import max_length_of
from harness.lm.mixing import System
from harness.lm.scoring import score
from harness.tasks.questions import Answers
from harness.tasks.text import TextTask, read_tokenizer
from harness.types import Combination


@dataclass(frozen=True)
class ScoredCombinations:
    """The answers of every combination, in the order given, and what the pass cost."""

    answers: tuple[Answers, ...]
    combine_seconds: float
    record: dict[str, Any]
    """What the pass did (``scoring.Work``), for the results."""


def score_combinations(combinations: Sequence[Combination], task: TextTask) -> ScoredCombinations:
    """Put every request of the task's lm-eval tasks to all combinations; each model runs once."""
    models, systems = systems_of(combinations)
    longest = min(max_length_of(model) for model in models)
    instances = task.questions.instances
    asked = requests_of(Encoder(read_tokenizer(task.tokenizer), longest), instances)
    scored = score(models, systems, asked.requests)
    answers = []
    for system in systems:
        said = asked.answers(scored, system.name)
        pairs = [answer if isinstance(answer, tuple) else (answer, False) for answer in said]
        answers.append(task.questions.answers([value for value, _ in pairs], [greedy for _, greedy in pairs]))
    work = asdict(scored.work)
    return ScoredCombinations(tuple(answers), scored.work.combine_seconds, {**work, "models": len(models)})


def systems_of(combinations: Sequence[Combination]) -> tuple[list[nn.Module], list[System]]:
    """The different models of several combinations, and each combination as a rule over positions among them."""
    models: list[nn.Module] = []
    places: dict[str, int] = {}
    systems = []
    for number, combination in enumerate(combinations):
        members = []
        for part in combination.parts():
            if part.digest not in places:
                places[part.digest] = len(models)
                models.append(part.module)
            members.append(places[part.digest])
        if isinstance(combination, OutputCombination):
            systems.append(System(str(number), tuple(members), combination.rule))
        else:
            systems.append(System.single(str(number), members[0]))
    return models, systems


def measures(answers: Answers) -> Mapping[str, np.ndarray]:
    """Per-document values whose means are scores: lm-eval's metrics, and bits per byte of each task and of all."""
    found = dict(answers.metrics)
    for rolling in answers.rolling:
        found[f"bits_per_byte/{rolling.task}"] = _bits_per_byte(rolling.nats, rolling.bytes)
    if answers.rolling:
        nats = np.concatenate([rolling.nats for rolling in answers.rolling])
        sizes = np.concatenate([rolling.bytes for rolling in answers.rolling])
        found["bits_per_byte"] = _bits_per_byte(nats, sizes)
    return found


def _bits_per_byte(nats: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Each document's share of the whole: the mean of these is all bits over all bytes, as lm-eval aggregates."""
    return -nats / np.log(2) / sizes.mean()
