"""Text: causal language models that lm-eval's tasks score, all combinations in one pass over the models they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field
from torch import nn

from harness.errors import BadInput
from harness.evaluate.halving import HALVED_TOKENS
from harness.evaluate.predictions import CachedPredictions
from harness.kinds.kind import LACKING, Evaluation, Kind, kind
from harness.models import causal_lm, configuration, windows
from harness.models.heads import CAUSAL
from harness.says import Says
from harness.store import Store
from harness.strict.fields import Strict, without_usual
from harness.tasks import asked, pretrained, text
from harness.tasks.task import Documents
from harness.tasks.text import TextReference, TextTask
from harness.types import Architecture, Combination, NotApplicable, Unscored


class LmEval(Strict):
    """Tasks of lm-eval by name, and a folder of task files, relative to the suite file."""

    lm_eval: Annotated[list[str], Field(min_length=1)]
    heldout: Annotated[
        Annotated[list[str], Field(min_length=1)] | None,
        Field(
            description="other tasks of lm-eval, with choices: what decides by choices (cascade, routed_members) is "
            "fitted on their documents"
        ),
    ] = None
    include_path: str | None = None

    @pydantic.model_serializer(mode="wrap")
    def _as_before(self, handler: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the younger key where it is as usual: a suite that lacks it keeps its digest."""
        return without_usual(self, handler(self), ("heldout",))


class Text(Kind[TextReference, TextTask]):
    """Windows of tokens to train on, to fit on and to study; documents of lm-eval's tasks to score."""

    name = text.KIND
    models = "a language model"
    key = "lm_eval"
    spec = LmEval
    preload = ("transformers.models.llama.modeling_llama", "lm_eval.tasks", "harness.lm.evaluation")
    seconds_per_input = 0.012
    in_one_pass = True
    inputs_are_scored = False
    scored_by = "lm-eval"
    logits = staticmethod(windows.logits)
    schedule = staticmethod(windows.schedule)

    @property
    def networks(self) -> Mapping[str, Callable[..., nn.Module]]:
        return {"tiny_llama": causal_lm.tiny_llama}

    @property
    def loaded(self) -> Mapping[str, Callable[..., nn.Module]]:
        return {CAUSAL.name: configuration.causal_lm}

    def refer(self, given: LmEval, suite: str, folder: Path, tokenizer: str | None) -> TextReference:
        """Its tokens are those of the main pool's tokenizer, where it has one."""
        include_path = str(folder / Path(given.include_path).expanduser()) if given.include_path else None
        return TextReference(suite, tuple(given.lm_eval), include_path, tokenizer, heldout=tuple(given.heldout or ()))

    def rendered(self, reference: TextReference, store: Store, limit: int | None, allow_code: bool) -> TextReference:
        """With the digest of all that is asked; ``BadInput`` where lm-eval's tasks are none that a suite can take."""
        tokenizer = pretrained.folder_of(reference.tokenizer) if reference.tokenizer else None
        names, folder = reference.lm_eval, reference.include_path
        digest = asked.asked(names, folder, limit, store, allow_code=allow_code)
        found = replace(reference, tokenizer=tokenizer, allow_code=allow_code, asked=digest)
        if not reference.heldout:
            return found
        fitted = asked.asked_apart(reference.heldout, names, folder, store, allow_code=allow_code)
        return replace(found, asked_on_heldout=fitted)

    def load(self, reference: TextReference, store: Store, limit: int | None) -> TextTask:
        return text.load(reference, store, limit)

    def documents(self, reference: TextReference, store: Store) -> Documents | None:
        """What planning left: lm-eval takes seconds to render them again."""
        return asked.read_documents(reference.asked, store) if reference.asked else None

    def why_not(self, architecture: Architecture, task: TextTask) -> str | None:
        """Never: models bring their own tokens, and what lacks some of them is scored by documents alone."""
        return None

    def evaluate(
        self, combinations: Sequence[Combination], task: TextTask, seen: TextTask, cached: CachedPredictions
    ) -> list[Evaluation | Unscored]:
        _ = task.questions  # what is wrong with these concerns all combinations
        return _in_one_pass(combinations, task)


def _in_one_pass(combinations: Sequence[Combination], task: TextTask) -> list[Evaluation | Unscored]:
    """Where a pass fails, its halves are tried, so that what is wrong with one combination is nothing to the others."""
    try:
        return _evaluated(combinations, task)
    except (BadInput, NotApplicable, RuntimeError, ValueError):
        if len(combinations) == 1:
            raise
    middle = len(combinations) // 2
    return [each for half in (combinations[:middle], combinations[middle:]) for each in _half(half, task)]


def _half(combinations: Sequence[Combination], task: TextTask) -> list[Evaluation | Unscored]:
    try:
        return _in_one_pass(combinations, task)
    except (BadInput, NotApplicable, RuntimeError, ValueError) as error:
        return [Unscored(f"{type(error).__name__}: {error}")]


def _evaluated(combinations: Sequence[Combination], task: TextTask) -> list[Evaluation | Unscored]:
    from harness.lm import evaluation, expert_use  # lm-eval takes seconds to import, and other kinds do without it

    scored = evaluation.score_combinations(combinations, task)
    record: dict[str, Any] = {"combine_seconds": scored.combine_seconds / len(combinations), "pass": scored.record}
    halved = [work["batch_tokens"] for work in scored.record if work["halvings"]]
    says: Says | None = "correctness" if task.documents.written else None
    found: list[Evaluation | Unscored] = []
    each = zip(combinations, scored.answers, scored.calls, scored.wrote, scored.lacking, strict=True)
    for combination, answers, calls, wrote, lacking in each:
        if isinstance(answers, Unscored):
            found.append(answers)
            continue
        more, own = (wrote.measures, wrote.record) if wrote else ({}, {})
        own = {**own, LACKING: dict(lacking)} if lacking else own
        if batches := halved + ([wrote.halved] if wrote and wrote.halved else []):
            own = {**own, HALVED_TOKENS: min(batches)}
        own = {**own, **expert_use.use_on_tasks(combination, task)}
        measures = {**evaluation.measures(answers), **more}
        of_tasks = answers.aggregates, answers.scores
        found.append(Evaluation(answers.log_probs, calls, {**record, **own}, measures, *of_tasks, says))
    return found


kind(Text())
