"""Scoring variants together, where one pass over models serves several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.evaluate.predictions import CachedPredictions
from harness.keys import Key
from harness.kinds.kind import Evaluation
from harness.pools.source import MemberPlan
from harness.results.metric import Outcomes
from harness.run import evaluating
from harness.run.stages.setting import Setting, documents_of, task_of
from harness.run.stages.stage import Stage
from harness.run.stages.variant import VariantPlan, is_built, is_inapplicable, load_built
from harness.systems.parts import MemberPart
from harness.types import Combination, Unscored


@dataclass(frozen=True, eq=False)
class Pass(Stage):
    """Variants of a seed scored in one pass over the models that they share (``Kind.in_one_pass``).

    Those that have no scores in the end are scored by themselves, each by its own stage; this one fails with their
    names.
    """

    what: str
    builds: tuple[Stage, ...]
    variants: tuple[VariantPlan, ...]

    group = "pass"

    @property
    def label(self) -> str:
        return f"seed {self.variants[0].seed}: score {self.what} in one pass"

    def artefacts(self) -> tuple[Key, ...]:
        store = self.setting.store
        return tuple(plan.evaluation_key for plan in self.variants if not is_inapplicable(store, plan))

    def after(self) -> tuple[Stage, ...]:
        return self.builds

    def reads(self) -> tuple[MemberPlan, ...]:
        return tuple(dict.fromkeys(source for plan in self.variants for source in plan.sources))

    def seconds(self) -> float:
        return 8.0 * len(self.variants[0].digests) if len(self.variants) > 1 else 8.0

    def run(self) -> None:
        evaluate_variants(self.setting, self.variants)


def evaluate_variants(setting: Setting, plans: tuple[VariantPlan, ...]) -> None:
    """Score variants of one pool that are not scored yet; an error names those that could not be."""
    store = setting.store
    todo = [plan for plan in plans if is_built(store, plan) and not store.has(plan.evaluation_key)]
    if not todo:
        return
    left: dict[str, str] = {}
    loaded: list[tuple[VariantPlan, Combination]] = []
    shared: dict[str, MemberPart] = {}  # without it a member is in memory once for each rule that has it
    for plan in sorted(todo, key=lambda plan: plan.used):
        with _left(plan, left, alone=len(todo) == 1):
            loaded.append((plan, load_built(setting, plan, shared)))
    cached = CachedPredictions(store, setting.device)
    tasks = task_of(setting), task_of(setting, todo[0].pool.groups)
    combinations = [combination for _, combination in loaded]
    evaluations = setting.kind.evaluate(combinations, *tasks, cached) if loaded else []
    for (plan, combination), evaluation in zip(loaded, evaluations, strict=True):
        with _left(plan, left, alone=len(todo) == 1):
            keep_evaluation(setting, plan, combination, evaluation)
    if left:
        raise RuntimeError("; ".join(f"{name}: {reason}" for name, reason in left.items()))


@contextmanager
def _left(plan: VariantPlan, left: dict[str, str], alone: bool) -> Iterator[None]:
    """Note the reason why a variant is left for its own stage; one that is alone has none, and fails."""
    try:
        yield
    except Exception as error:
        if alone:
            raise
        left[plan.name] = f"{type(error).__name__}: {error}"


def keep_evaluation(
    setting: Setting, plan: VariantPlan, combination: Combination, evaluation: Evaluation | Unscored
) -> None:
    """Store what a variant says on test, and the costs that are counted."""
    if isinstance(evaluation, Unscored):
        raise evaluation
    labels, test = documents_of(setting).labels, task_of(setting).test
    count = setting.kind.why_no_costs is None
    key = plan.evaluation_key
    evaluating.write_evaluation(setting.store, key, combination, evaluation, labels, test, count=count)


def outcomes_of(setting: Setting, plan: VariantPlan) -> Outcomes:
    """A variant's outcomes on test with the truth, as metrics take them."""
    documents = documents_of(setting)
    examples = evaluating.read_examples(setting.store, plan.evaluation_key)
    says = evaluating.read_record(setting.store, plan.evaluation_key)["says"]
    return Outcomes(examples, documents.labels.numpy(), documents.classes, documents.clusters, documents.ids, says)
