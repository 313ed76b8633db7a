"""What combinations of language models write in answer to the prompts of lm-eval's tasks, and what ran for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from transformers.utils import CONFIG_NAME, GENERATION_CONFIG_NAME

from harness.errors import BadInput
from harness.lm.answered import Answered, texts_of, tokens_of
from harness.lm.generation_request import Written, counted
from harness.lm.lm_eval_model import StockpotLM
from harness.lm.revision import draft_and_revise
from harness.lm.sampling import draw_and_choose
from harness.models.causal_lm import read_generation_config
from harness.models.tokens import read_tokenizer
from harness.results.other_columns import GENERATED
from harness.systems.cascade_routing import CascadeRouting
from harness.systems.fitting import uniform
from harness.systems.parts import MemberPart
from harness.systems.routed import Routed
from harness.systems.rules import Linear, Rule
from harness.systems.staged import Staged
from harness.systems.systems import SEQUENCE_LEVEL, OutputCombination, SingleModel
from harness.systems.text_acceptance import accepts_texts
from harness.systems.written import Revision, SelfConsistency
from harness.tasks.questions import WRITTEN, Questions
from harness.tasks.text import TextTask
from harness.types import Combination, NotApplicable, Part, Unscored

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Writer:
    """Models that write in lock step under a rule; what they have written to a prompt is not written again."""

    def __init__(self, lm: StockpotLM, prompts: Sequence[Any]) -> None:
        self.lm = lm
        self._asked: list[tuple[str, dict[str, Any]]] = [prompt.args for prompt in prompts]
        numbers = iter(counted([prompt.args for prompt in prompts for _ in range(prompt.repeats)]))
        self._numbers = [[next(numbers) for _ in range(prompt.repeats)] for prompt in prompts]
        self._known: dict[tuple[Any, ...], Written] = {}

    @property
    def models(self) -> int:
        """How many run for each token."""
        return len(self.lm.models)

    def asked(self, row: int) -> tuple[str, dict[str, Any]]:
        """A prompt, and the generation arguments of its task."""
        return self._asked[row]

    @cached_property
    def too_long(self) -> dict[int, str]:
        """The prompts, by row, that do not fit the model with an answer, each with the reason."""
        reasons = {row: self.lm.too_long(*asked) for row, asked in enumerate(self._asked)}
        return {row: reason for row, reason in reasons.items() if reason}

    def answers(self, rows: Sequence[int]) -> list[list[Written]]:
        """Of these prompts, as many texts as their tasks ask for, as lm-eval numbers them."""
        wanted = [(row, number) for row in rows for number in self._numbers[row]]
        texts = iter(self.write(wanted))
        return [[next(texts) for _ in self._numbers[row]] for row in rows]

    def write(
        self, wanted: Sequence[tuple[int, int]], changed: Mapping[str, Any] = NOTHING, seed: int = 0
    ) -> list[Written]:
        """Texts by prompt and by number among those that are drawn for it.

        Args:
            wanted: row of the prompt, and number.
            changed: generation arguments that stand in place of the task's.
            seed: of what is drawn.
        """
        how = (*sorted(changed.items()), seed)
        new = [each for each in dict.fromkeys(wanted) if (*each, how) not in self._known]
        asked = [(self._asked[row][0], {**self._asked[row][1], **changed}) for row, _ in new]
        texts = self.lm.write(asked, [number for _, number in new], seed)
        self._known |= {(*each, how): text for each, text in zip(new, texts, strict=True)}
        return [self._known[(*each, how)] for each in wanted]


class Writing:
    """The prompts of a task, and the models that were asked them: a model alone is asked once for all that have it."""

    def __init__(self, task: TextTask) -> None:
        self.task, self.questions = task, task.questions
        self.prompts = self.questions.prompts
        self._writers: dict[str, Writer] = {}
        self._asked: list[Writer] = []  # by the combination that answers now

    def answer(self, combination: Combination) -> Answered:
        """What a combination writes; ``Unscored`` with the reason where it cannot."""
        self._asked = []
        try:
            found = self._answer(combination)
        except (BadInput, NotApplicable) as reason:
            raise Unscored(str(reason)) from None
        halved = min((each.lm.halved for each in self._asked if each.lm.halved), default=None)
        return replace(found, measures={**found.measures, **self._tokens(found)}, halved=halved)

    def _answer(self, combination: Combination) -> Answered:
        if isinstance(combination, Staged):
            return self._staged(combination)
        if isinstance(combination, SelfConsistency):
            return draw_and_choose(combination, self)
        if isinstance(combination, Revision):
            return draft_and_revise(combination, self)
        if isinstance(combination, Routed | CascadeRouting):
            raise Unscored("a router decides by the choices of a document, and what is written has none")
        return self._at_once(combination)

    def _tokens(self, answered: Answered) -> dict[str, np.ndarray]:
        """Of each task's documents, the tokens that were generated."""
        found, start = {}, 0
        for name, count in tasks_of(self.questions):
            found[f"{GENERATED.name}/{name}"] = answered.tokens[start : start + count].astype(np.float64)
            start += count
        return found

    def writer(self, parts: Sequence[Part], rule: Rule | None = None, *, whole: bool = True) -> Writer:
        """The models of these parts under a rule; one part without a rule is that model.

        Raises:
            Unscored: for models that cannot write; where the ``whole`` of all prompts has to fit them, and does not
                (lm-eval goes on with what is left of a prompt: here that is no result).
        """
        key = parts[0].digest if rule is None else ""
        made = self._writers.get(key) or Writer(self._model(parts, rule or Linear(uniform(1))), self.prompts)
        if key:
            self._writers[key] = made
        self._asked.append(made)
        if whole and made.too_long:
            reason = next(iter(made.too_long.values()))
            raise Unscored(f"{len(made.too_long)} of {len(self.prompts)} prompts are too long, such as: {reason}")
        return made

    def writer_of(self, combination: Combination) -> Writer:
        """The models of an output rule, or a single model."""
        if isinstance(combination, SingleModel):
            return self.writer(combination.parts())
        if not isinstance(combination, OutputCombination):
            raise Unscored(f"a {type(combination).__name__} cannot write")
        if combination.by_continuation:
            raise Unscored(f"members have different tokenizers: {SEQUENCE_LEVEL} has no next token, and cannot write")
        plain = len(combination.parts()) == 1 and isinstance(combination.rule, Linear)
        return self.writer(combination.parts(), None if plain else combination.rule)

    def _model(self, parts: Sequence[Part], rule: Rule) -> StockpotLM:
        tokenizer = parts[0].tokenizer or self.task.heldout.tokenizer
        assert tokenizer is not None
        for part in parts:
            if not part.by_row:
                raise Unscored(f"{part.name} draws anew for every batch: what it writes would depend on the batch")
            self._settle(part)
        return StockpotLM([part.network for part in parts], rule, read_tokenizer(Path(tokenizer.folder)))

    def _settle(self, part: Part) -> None:
        """Give a model the settings of its folder; one that was made here, those of the folder of the tokenizer."""
        own = part.member.provenance.get("folder") if isinstance(part, MemberPart) else None
        folders = [Path(str(folder)) for folder in (own, self.task.tokenizer) if folder]
        if folder := next(filter(_has_settings, folders), None):
            part.module.generation_config = read_generation_config(folder)

    def _at_once(self, combination: Combination) -> Answered:
        writer, rows = self.writer_of(combination), range(len(self.prompts))
        written = writer.answers(rows)
        calls = np.ones((len(written), len(combination.parts())), dtype=np.int64)
        times = np.array([len(texts) for texts in written], dtype=np.int64)
        return Answered(texts_of(written), calls * times[:, None], writer.models * tokens_of(written))

    def _staged(self, system: Staged) -> Answered:
        """Every stage writes for what is left, as if no other had: a mixture has to write anew what a member wrote."""
        if any(prompt.repeats > 1 for prompt in self.prompts):
            raise Unscored("a stage decides by its answer, and the task asks for several of each document (repeats)")
        if system.accept and system.settings:
            raise Unscored("its thresholds were fitted on choices, and tell nothing of what is written: give threshold")
        writers = [self.writer_of(stage) for stage in system.stages]
        digests = [part.digest for part in system.parts()]
        ran = np.array([[digest in {part.digest for part in stage.parts()} for digest in digests]
                        for stage in system.stages], dtype=np.int64)  # fmt: skip
        texts: list[list[str]] = [[] for _ in self.prompts]
        tokens, stops = np.zeros(len(texts), dtype=np.int64), np.zeros(len(texts), dtype=np.int64)
        rows = np.arange(len(texts))
        for number, writer in enumerate(writers):
            written = writer.answers(rows.tolist())
            tokens[rows] += writer.models * tokens_of(written)
            for row, own in zip(rows, texts_of(written), strict=True):
                texts[row] = own
            stops[rows] = number
            if number < len(system.accept):
                rows = rows[~accepts_texts(system.accept[number], [text.log_probs for (text,) in written])]
            if not len(rows):
                break
        calls = ran.cumsum(axis=0)
        names = [[part.name for part in system.parts_until(number)] for number in range(len(writers))]
        shares = [{"models": own, "share": float((stops == number).mean())} for number, own in enumerate(names)]
        return Answered(texts, calls[stops], tokens, {"stages": shares})


def _has_settings(folder: Path) -> bool:
    """Whether a folder says how its model generates."""
    return any((folder / name).is_file() for name in (GENERATION_CONFIG_NAME, CONFIG_NAME))


def tasks_of(questions: Questions) -> Iterable[tuple[str, int]]:
    """The tasks that are answered in writing, and how many prompts each has."""
    return ((name, len(questions.of[name])) for name, _ in questions.of_kind(WRITTEN))
