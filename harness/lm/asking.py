"""The systems of several combinations, asked what lm-eval's tasks ask: in one pass over the models that they share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
from harness.lm.stages import Chosen, Said, choose_member, choose_route, choose_stage
from harness.models.tokens import read_tokenizer
from harness.systems.cascade_routing import CascadeRouting
from harness.systems.deciding import decides_by_choices
from harness.systems.routed import Routed
from harness.systems.rules import Linear, Rule
from harness.systems.staged import InStages, Staged
from harness.systems.systems import OutputCombination
from harness.systems.written import WrittenAnswers
from harness.tasks.text import TextTask
from harness.types import Combination, NotApplicable, Part, Tokenizer, Unscored


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


@dataclass(frozen=True)
class Planned:
    """The names of the systems that a combination is scored as."""

    stages: list[list[str]]
    """Of each stage: one, or one for each member of a mixture of continuations. What is not staged has one stage, and
    routed members are a stage each."""
    models: dict[str, str]
    """Of the parts that a staged system decides by: its name, by the part's digest."""


class Asked:
    """Systems of several combinations, and what each says."""

    def __init__(self, task: TextTask) -> None:
        self.task, self.passes = task, _Passes(task.questions.instances)
        self.said: dict[str, Said | Unscored] = {}

    def plan(self, combination: Combination | Part, name: str) -> Planned:
        """Add the systems of a combination; none where nothing is asked that it has log-likelihoods of."""
        if isinstance(combination, Part):
            self._add_system(name, [combination], None)
            return Planned([[name]], {})
        nothing = not self.task.questions.choices if decides_by_choices(combination) else not self.passes.instances
        if nothing or isinstance(combination, WrittenAnswers):
            return Planned([], {})
        if isinstance(combination, Routed):
            names = [f"{name}/{number}" for number in range(len(combination.members))]
            for each, member in zip(names, combination.members, strict=True):
                self._add_system(each, [member], None)
            return Planned([[each] for each in names], {})
        if not isinstance(combination, InStages):
            return Planned([self._add(combination, name)], {})
        stages = [self._add(stage, f"{name}/{number}") for number, stage in enumerate(combination.stages)]
        if not isinstance(combination, Staged):
            return Planned(stages, {})
        models: dict[str, str] = {}
        for part in combination.parts_until(len(combination.accept) - 1) if combination.accept else []:
            models[part.digest] = f"{name}/{len(models)} alone"
            self._add_system(models[part.digest], [part], None)
        return Planned(stages, models)

    def _add(self, combination: Combination, name: str) -> list[str]:
        rule = combination.rule if isinstance(combination, OutputCombination) else None
        apart = isinstance(combination, OutputCombination) and combination.by_continuation
        groups = [[part] for part in combination.parts()] if apart else [list(combination.parts())]
        names = [f"{name}.{position}" for position in range(len(groups))]
        for each, parts in zip(names, groups, strict=True):
            self._add_system(each, parts, None if apart else rule)
        return names

    def _add_system(self, name: str, parts: Sequence[Part], rule: Rule | None) -> None:
        tokenizer = parts[0].tokenizer or self.task.heldout.tokenizer
        assert tokenizer is not None
        try:
            self.passes.add(name, tokenizer, parts, rule)
        except (BadInput, NotApplicable) as reason:
            self.said[name] = Unscored(str(reason))

    def run(self) -> list[dict[str, Any]]:
        """Ask all of them; returns what each pass did."""
        answered, records = self.passes.run()
        self.said |= answered
        return records

    def said_by(self, combination: Combination, planned: Planned) -> tuple[Chosen, np.ndarray]:
        """What a combination says of all instances, and its calls [documents, parts]; ``Unscored`` where it cannot.

        What decides by choices says nothing (None) of instances that are not about a document with choices.
        """
        if not planned.stages:
            return [None] * len(self.passes.instances), np.zeros((0, 0), dtype=np.int64)
        if isinstance(combination, Routed):
            members = [self._of(name) for (name,) in planned.stages]
            return choose_member(combination, members, self.task.questions)
        if isinstance(combination, InStages):
            stages = [self._mixed(*each) for each in zip(combination.stages, planned.stages, strict=True)]
            if isinstance(combination, CascadeRouting):
                return choose_route(combination, stages, self.task.questions)
            assert isinstance(combination, Staged)
            models = {digest: self._of(name) for digest, name in planned.models.items()}
            return choose_stage(combination, stages, models, self.task.questions)
        calls = combination.every_part_once(len(self.task.documents.ids))
        return [*self._mixed(combination, planned.stages[0])], calls.numpy()

    def said_alone(self, system: Combination | Part, planned: Planned) -> Said:
        """What a rule, a single model or a model says of all instances; ``Unscored`` where it cannot."""
        (names,) = planned.stages
        return self._of(names[0]) if isinstance(system, Part) else self._mixed(system, names)

    def _of(self, name: str) -> Said:
        said = self.said[name]
        if isinstance(said, Unscored):
            raise said
        return said

    def _mixed(self, combination: Combination, names: Sequence[str]) -> Said:
        """What a rule or a single model says: one system, or a mixture of its members' continuations."""
        found = [self._of(name) for name in names]
        if len(found) == 1:
            return found[0]
        assert isinstance(combination, OutputCombination)
        assert isinstance(combination.rule, Linear)
        each_member = torch.tensor([[value for value, _ in member] for member in found], dtype=torch.float64)
        mixed = sequence_mixture(each_member, combination.rule.weights)
        return [(value, False) for value in mixed.tolist()]
