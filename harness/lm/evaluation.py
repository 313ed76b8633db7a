"""Combinations of language models, scored by lm-eval's tasks: all of them in one pass over the models they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.combinations import OutputCombination
from harness.combining import Linear, Rule
from harness.errors import BadInput
from harness.lm.encoding import Encoder, requests_of
from harness.lm.forward import max_length_of
from harness.lm.mixing import System
from harness.lm.scoring import Work, score
from harness.lm.sequence import sequence_mixture
from harness.models.tokens import read_tokenizer
from harness.tasks.answers import Answers, answers_of
from harness.tasks.text import TextTask
from harness.types import Combination, Part, Tokenizer


@dataclass(frozen=True)
class ScoredCombinations:
    """The answers of every combination, in the order given, and what the pass cost."""

    answers: tuple[Answers, ...]
    combine_seconds: float
    record: list[dict[str, Any]]
    """What each pass did (``scoring.Work``), for the results."""


class _Pass:
    """The models that read one tokenizer's tokens, each once, and the systems that are made of them."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        assert tokenizer is not None
        self.tokenizer = read_tokenizer(Path(tokenizer.folder))
        self.models: list[nn.Module] = []
        self.systems: list[System] = []
        self._places: dict[str, int] = {}

    def add(self, name: str, parts: Sequence[Part], rule: Rule | None) -> None:
        """A system of these parts; one part without a rule is that model."""
        for part in parts:
            if part.digest not in self._places:
                self._places[part.digest] = len(self.models)
                self.models.append(part.network)
        members = tuple(self._places[part.digest] for part in parts)
        self.systems.append(System(name, members, rule) if rule else System.single(name, members[0]))

    def run(self, instances: Sequence[Any]) -> tuple[dict[str, list[tuple[float, bool]]], Work]:
        """Every system's answers to the instances, by name: log-likelihood, and whether it is the first choice."""
        longest = min(max_length_of(model) for model in self.models)
        asked = requests_of(Encoder(self.tokenizer, longest), instances)
        scored = score(self.models, self.systems, asked.requests)
        if cut := scored.work.truncated:  # lm-eval goes on with what is left of the context: here that is no result
            raise BadInput(
                f"{cut} of {len(asked.requests)} requests are longer than the {longest} tokens that a model takes"
            )
        found = {}
        for system in self.systems:
            said = asked.answers(scored, system.name)
            found[system.name] = [answer if isinstance(answer, tuple) else (answer, False) for answer in said]
        return found, scored.work


def score_combinations(combinations: Sequence[Combination], task: TextTask) -> ScoredCombinations:
    """Put every request of the task's lm-eval tasks to all combinations; each model runs once.

    Members that share a tokenizer run in lock step. Those of a sequence-level mixture are scored one by one, each
    with its own tokens, and their log-likelihoods of whole continuations are mixed.
    """
    passes: dict[Tokenizer | None, _Pass] = {}
    names: list[list[str]] = []
    for number, combination in enumerate(combinations):
        rule = combination.rule if isinstance(combination, OutputCombination) else None
        apart = isinstance(combination, OutputCombination) and combination.by_continuation
        groups = [[part] for part in combination.parts()] if apart else [list(combination.parts())]
        names.append([f"{number}.{position}" for position in range(len(groups))])
        for name, parts in zip(names[-1], groups, strict=True):
            tokenizer = parts[0].tokenizer or task.heldout.tokenizer
            passes.setdefault(tokenizer, _Pass(tokenizer)).add(name, parts, None if apart else rule)
    instances = task.questions.instances
    said: dict[str, list[tuple[float, bool]]] = {}
    records, seconds = [], 0.0
    for each in passes.values():
        answered, work = each.run(instances)
        said |= answered
        records.append({**asdict(work), "models": len(each.models)})
        seconds += work.combine_seconds
    answers = []
    for combination, systems in zip(combinations, names, strict=True):
        found = said[systems[0]]
        if len(systems) > 1:
            assert isinstance(combination, OutputCombination)
            assert isinstance(combination.rule, Linear)
            each_member = torch.tensor([[value for value, _ in said[name]] for name in systems], dtype=torch.float64)
            mixed = sequence_mixture(each_member, combination.rule.weights)
            found = [(value, False) for value in mixed.tolist()]
        answers.append(answers_of(task.questions, [value for value, _ in found], [greedy for _, greedy in found]))
    return ScoredCombinations(tuple(answers), seconds, records)


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
