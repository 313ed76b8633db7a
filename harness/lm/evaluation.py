"""Combinations of language models, scored by lm-eval's tasks: all of them in one pass over the models they share."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.models.utils import resolve_max_length

from harness.errors import BadInput
from harness.lm.encoding import Collected, Encoder, requests_of
from harness.lm.forward import LanguageModel, shared_vocabulary, with_shared_vocabulary
from harness.lm.mixing import NotFinite, System
from harness.lm.scoring import Work, score
from harness.lm.sequence import sequence_mixture
from harness.models.tokens import read_tokenizer
from harness.systems.rules import Linear, Rule
from harness.systems.systems import OutputCombination
from harness.tasks.answers import Answers, answers_of
from harness.tasks.text import TextTask
from harness.types import Combination, NotApplicable, Part, Tokenizer


class Unscored(Exception):
    """Why a combination has no answers; those beside it have theirs."""


@dataclass(frozen=True)
class ScoredCombinations:
    """The answers of every combination, or why there are none, in the order given, and what the pass cost."""

    answers: tuple[Answers | Unscored, ...]
    combine_seconds: float
    record: list[dict[str, Any]]
    """What each pass did (``scoring.Work``), for the results."""


Said = list[tuple[float, bool]]
"""What one system says of all instances: log-likelihood, and whether it is the first choice."""


class _Instances:
    """What is asked, in the tokens of one tokenizer; whole texts are cut into windows of a length."""

    def __init__(self, tokenizer: Any, instances: Sequence[Any]) -> None:
        self.tokenizer, self.instances = tokenizer, instances
        self._by_length: dict[int, Collected] = {}

    def asked(self, length: int) -> Collected:
        """The requests for models of a length; the same object for lengths that make no difference."""
        if length not in self._by_length:
            found = requests_of(Encoder(self.tokenizer, length), self.instances)
            same = (other for other in self._by_length.values() if other == found)
            self._by_length[length] = next(same, found)
        return self._by_length[length]


class _SharedPass:
    """Models of one vocabulary that are asked the same, each once, and the systems that are made of them."""

    def __init__(self, asked: Collected) -> None:
        self.asked, self.length = asked, sys.maxsize
        self.names: list[str] = []
        self.models: list[LanguageModel] = []
        self.systems: list[System] = []
        self._places: dict[str, int] = {}

    def add(self, name: str, parts: Sequence[Part], models: Sequence[LanguageModel], rule: Rule | None) -> None:
        """A system of these parts, which run as these models; one part without a rule is that model."""
        for part, model in zip(parts, models, strict=True):
            if part.digest not in self._places:
                self._places[part.digest] = len(self.models)
                self.models.append(model)
                self.names.append(part.name)
        members = tuple(self._places[part.digest] for part in parts)
        self.systems.append(System(name, members, rule) if rule else System.single(name, members[0]))

    def run(self) -> tuple[dict[str, Said | Unscored], Work | None]:
        """What every system says, by its name; those that have a model without finite logits say nothing."""
        said: dict[str, Said | Unscored] = {}
        systems = self.systems
        while systems:
            try:
                scored = score(self.models, systems, self.asked.requests, max_length=self.length)
            except NotFinite as error:
                reason = f"{self.names[error.model]} gives logits that are not finite (NaN weights?)"
                said |= {system.name: Unscored(reason) for system in systems if error.model in system.members}
                systems = [system for system in systems if error.model not in system.members]
                continue
            for system in systems:
                answers = self.asked.answers(scored, system.name)
                said[system.name] = [answer if isinstance(answer, tuple) else (answer, False) for answer in answers]
            return said, scored.work
        return said, None


class _Passes:
    """The passes that systems need: what a system says depends on its own models only, not on those beside it."""

    def __init__(self, instances: Sequence[Any]) -> None:
        self.instances = instances
        self._read: dict[tuple[Tokenizer, int | None], _Instances] = {}
        self._passes: dict[tuple[Tokenizer, int, int], _SharedPass] = {}

    def add(self, name: str, tokenizer: Tokenizer, parts: Sequence[Part], rule: Rule | None) -> None:
        """Put a system where its like are.

        Raises:
            NotApplicable: models that lack tokens of their tokenizer, or of what is asked.
            BadInput: requests that are longer than a model takes.
        """
        words = read_tokenizer(Path(tokenizer.folder))
        read = self._read.setdefault((tokenizer, tokenizer.begins), _Instances(words, self.instances))
        networks = [part.network for part in parts]
        models = with_shared_vocabulary(networks, read.tokenizer)
        vocabulary = shared_vocabulary(models)
        length = min(resolve_max_length(model.config, read.tokenizer) for model in networks)
        asked = read.asked(length)
        # lm-eval goes on with what is left of a context that is too long: here that is no result
        if long := sum(size > length + 1 for size in asked.sizes):
            of = f"{long} of {len(asked.sizes)}"
            raise BadInput(f"{of} requests are longer than the {length} tokens that a model takes")
        if asked.largest >= vocabulary:
            raise NotApplicable(f"the vocabulary has {vocabulary} tokens, and token {asked.largest} is asked for")
        each = self._passes.setdefault((tokenizer, vocabulary, id(asked)), _SharedPass(asked))
        each.length = min(each.length, length)
        each.add(name, parts, models, rule)

    def run(self) -> tuple[dict[str, Said | Unscored], list[dict[str, Any]]]:
        """What every system says, by its name, and what each pass did."""
        said: dict[str, Said | Unscored] = {}
        records = []
        for each in self._passes.values():
            answered, work = each.run()
            said |= answered
            if work:
                records.append({**asdict(work), "models": len(each.models)})
        return said, records


def score_combinations(combinations: Sequence[Combination], task: TextTask) -> ScoredCombinations:
    """Put every request of the task's lm-eval tasks to all combinations; models that can run together run once.

    Members that share a tokenizer run in lock step. Those of a sequence-level ensemble are scored one by one, each
    with its own tokens, and their log-likelihoods of continuations are mixed.
    """
    passes = _Passes(task.questions.instances)
    names: list[list[str]] = []
    said: dict[str, Said | Unscored] = {}
    for number, combination in enumerate(combinations):
        rule = combination.rule if isinstance(combination, OutputCombination) else None
        apart = isinstance(combination, OutputCombination) and combination.by_continuation
        groups = [[part] for part in combination.parts()] if apart else [list(combination.parts())]
        names.append([f"{number}.{position}" for position in range(len(groups))])
        for name, parts in zip(names[-1], groups, strict=True):
            tokenizer = parts[0].tokenizer or task.heldout.tokenizer
            assert tokenizer is not None
            try:
                passes.add(name, tokenizer, parts, None if apart else rule)
            except (BadInput, NotApplicable) as reason:
                said[name] = Unscored(str(reason))
    answered, records = passes.run()
    said |= answered
    answers = tuple(
        _answers(combination, [said[name] for name in systems], task)
        for combination, systems in zip(combinations, names, strict=True)
    )
    return ScoredCombinations(answers, sum(record["combine_seconds"] for record in records), records)


def _answers(combination: Combination, said: Sequence[Said | Unscored], task: TextTask) -> Answers | Unscored:
    """A combination's answers from what its systems say: one, or each member of a mixture of continuations."""
    found: list[Said] = []
    for each in said:
        if isinstance(each, Unscored):
            return each
        found.append(each)
    if len(found) > 1:
        assert isinstance(combination, OutputCombination)
        assert isinstance(combination.rule, Linear)
        each_member = torch.tensor([[value for value, _ in member] for member in found], dtype=torch.float64)
        mixed = sequence_mixture(each_member, combination.rule.weights)
        found = [[(value, False) for value in mixed.tolist()]]
    return answers_of(task.questions, [value for value, _ in found[0]], [greedy for _, greedy in found[0]])


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
