"""Every law on every registered method; and methods that break one law each, which must be caught.

The laws are those of ``harness.checks.methods``, which plug-ins run on their own methods.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch

from harness.checks import BrokenLaw, check_method, laws
from harness.checks import methods as checks_of_methods
from harness.checks.methods import check_hash_seeds
from harness.checks.pools import CNN
from harness.merging.arithmetic import average
from harness.methods.method import Method, method
from harness.models.weights import module_with
from harness.registry import METHODS
from harness.systems.acceptance import Confidence
from harness.systems.fitting import uniform
from harness.systems.parts import MemberPart
from harness.systems.rules import Linear, LogLinear
from harness.systems.staged import Staged
from harness.systems.systems import OutputCombination, SingleModel, member_parts
from harness.systems.written import SelfConsistency
from harness.types import Combination, NotApplicable

LAWS = laws("method")
WRITING_LAWS = laws("writing method")


def cases(*, writes: bool):
    return [
        pytest.param(method.name, parameters, id=f"{method.name}-{i}")
        for method in METHODS.all().values()
        for i, parameters in enumerate(method.small)
        if method.writes == writes
    ]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(("name", "parameters"), cases(writes=False))
def test_method(name, parameters, law):
    law(METHODS.get(name), parameters)


@pytest.mark.parametrize("law", WRITING_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(("name", "parameters"), cases(writes=True))
def test_writing_method(name, parameters, law):
    law(METHODS.get(name), parameters)


def test_every_method_reads_like_one():
    for found in METHODS:
        assert found.summary.endswith(".")
        assert found.paper
        assert found.small
        assert found.needs <= {"members", "base", "train", "heldout"}


# Methods that break one law each.


def ensemble(ingredients, rule=None):
    parts = member_parts(ingredients)
    return OutputCombination(parts, rule or Linear(uniform(len(parts))))


def mutates_a_member(ingredients):
    next(iter(ingredients.members[0].weights.values())).mul_(1.5)
    return ensemble(ingredients)


def depends_on_order(ingredients):
    weights = torch.arange(1.0, len(ingredients.members) + 1)
    return ensemble(ingredients, Linear(weights / weights.sum()))


def takes_the_first(ingredients):
    return OutputCombination(member_parts(ingredients)[:1], Linear(uniform(1)))


def draws_from_the_global_generator(ingredients):
    weights = torch.rand(len(ingredients.members))
    return ensemble(ingredients, Linear(weights / weights.sum()))


def reseeds_the_world(ingredients):
    torch.manual_seed(0)
    return ensemble(ingredients)


class Unnormalised(Linear):
    def __call__(self, stacked):
        return super().__call__(stacked) + 0.01


def is_not_normalised(ingredients):
    return ensemble(ingredients, Unnormalised(uniform(len(ingredients.members))))


def peeks_at_heldout(ingredients):
    centre = float(ingredients.heldout_.inputs.mean())
    return ensemble(ingredients, LogLinear(torch.full((len(ingredients.members),), 0.3 + centre % 1)))


def peeks_at_the_base(ingredients):
    base = ingredients.pool_.base
    return OutputCombination([*member_parts(ingredients), *([MemberPart(base)] if base else [])], LogLinear(uniform(4)))


class Sharpened(OutputCombination):
    def combine(self, stacked):
        return torch.log_softmax(2 * super().combine(stacked), dim=-1)

    def log_probs(self, batch):
        return self.rule(torch.stack([part.log_probs(batch) for part in self.parts()]))


def has_two_paths(ingredients):
    parts = member_parts(ingredients)
    return Sharpened(parts, Linear(uniform(len(parts))))


def averages_what_cannot_be(ingredients):
    weights = average([member.weights for member in ingredients.members])
    return SingleModel(CNN, module_with(CNN, weights))


def reads_past_the_declared(ingredients):
    members = ingredients.pool.members  # may be empty; ingredients.members is not
    return OutputCombination([MemberPart(members[0])], Linear(uniform(1)))


def forgets_a_member(ingredients):
    members = ingredients.members
    weights = average([*(m.weights for m in members), {n: 0 * t for n, t in members[0].weights.items()}])
    return SingleModel(CNN, module_with(CNN, weights))


class Forgetful(SingleModel):
    def save(self, folder):
        zeros = {name: torch.zeros_like(tensor) for name, tensor in self.module.state_dict().items()}
        SingleModel(self.architecture, module_with(self.architecture, zeros)).save(folder)


def saves_something_else(ingredients):
    member = ingredients.members[0]
    return Forgetful(CNN, module_with(CNN, member.weights))


def dies_at_the_edge(ingredients, *, scale: float = 1.0):
    return ensemble(ingredients, LogLinear(torch.full((len(ingredients.members),), 1 / scale if scale else torch.nan)))


def drops_out(ingredients):
    combination = SingleModel(CNN, module_with(CNN, ingredients.members[0].weights))
    combination.module.train()
    return combination


def blesses_nan(ingredients):
    found = ensemble(ingredients)
    inner = found.log_probs
    found.log_probs = lambda batch: torch.log_softmax(inner(batch).nan_to_num(0.0), dim=-1)  # type: ignore
    return found


def needs_two(ingredients):
    members = ingredients.members
    return OutputCombination([MemberPart(members[0]), MemberPart(members[1])], Linear(uniform(2)))


def touches_more_than_it_names(ingredients):
    return ensemble(ingredients)


class Modest(Staged):
    """Says that its last stage never ran."""

    def run(self, batch):
        log_probs, calls = super().run(batch)
        return log_probs, calls.minimum(self.ran[0])


def hides_calls(ingredients):
    found = two_stages(ingredients)
    return Modest(found.stages, found.accept)


class Forked(OutputCombination):
    def run(self, batch):
        log_probs, calls = super().run(batch)
        return log_probs.flip(-1), calls


def says_two_things(ingredients):
    parts = member_parts(ingredients)
    return Forked(parts, Linear(uniform(len(parts))))


def takes_the_first_input(ingredients):
    _ = ingredients.train_inputs[0]
    return ensemble(ingredients)


def breaks_without_weights(ingredients):
    try:
        _ = [len(member.weights) for member in ingredients.members]
    except NotApplicable as reason:
        raise KeyError("no weights") from reason
    return ensemble(ingredients)


class Assured(OutputCombination):
    """Says that it gives probabilities, whatever its members do."""

    says = "probabilities"


def makes_probabilities_up(ingredients):
    parts = member_parts(ingredients)
    return Assured(parts, Linear(uniform(len(parts))))


WRONG: list[tuple[Callable[..., Combination], str]] = [
    (mutates_a_member, "what_it_was_given_is_unchanged"),
    (depends_on_order, "member_order_is_irrelevant"),
    (takes_the_first, "member_order_is_irrelevant"),
    (draws_from_the_global_generator, "same_seed_same_output"),
    (reseeds_the_world, "global_random_state_is_unchanged"),
    (is_not_normalised, "finite_and_normalised"),
    (peeks_at_heldout, "undeclared_inputs_are_untouched"),
    (peeks_at_the_base, "undeclared_inputs_are_untouched"),
    (has_two_paths, "fast_path_equals_slow_path"),
    (averages_what_cannot_be, "other_architectures_work_or_say_why"),
    (reads_past_the_declared, "no_member_says_why"),
    (forgets_a_member, "identical_members_change_nothing"),
    (saves_something_else, "save_and_load_round_trip"),
    (dies_at_the_edge, "extreme_parameters_behave_or_say_why"),
    (drops_out, "same_batch_same_output"),
    (blesses_nan, "nan_weights_are_never_a_number"),
    (needs_two, "one_member_works_or_says_why"),
    (touches_more_than_it_names, "members_it_does_not_name_are_untouched"),
    (hides_calls, "calls_add_up_to_the_cost_that_is_reported"),
    (says_two_things, "run_says_what_log_probs_says"),
    (takes_the_first_input, "without_training_data_it_works_or_says_why"),
    (breaks_without_weights, "without_weights_it_works_or_says_why"),
    (makes_probabilities_up, "of_answers_it_says_whether_they_are_enough"),
]


@pytest.fixture
def declare(monkeypatch):
    """Registers a method for the length of one test."""
    monkeypatch.setattr(METHODS, "_known", METHODS.all())

    def register(function: Callable[..., Combination], **changes: Any) -> Method:
        name = function.__name__
        given: dict[str, Any] = {
            "family": "output",
            "summary": "Wrong.",
            "paper": "-",
            "needs": {"members", "train"} if function is takes_the_first_input else {"members"},
            "reads": "correctness" if function is makes_probabilities_up else "probabilities",
            "identical_members_unchanged": True,
            "uses": lambda parameters: [0] if function is touches_more_than_it_names else None,
        }
        method(name, **{**given, **changes})(function)
        return METHODS.get(name)

    return register


@pytest.mark.parametrize(("function", "name"), WRONG, ids=lambda given: getattr(given, "__name__", given))
def test_a_wrong_method_is_caught(function, name, declare):
    method = declare(function)
    law = next(law for law in LAWS if law.__name__ == name)
    with pytest.raises(BrokenLaw) as caught:
        law(method, {})
    assert caught.value.law == name
    assert f"method '{function.__name__}'" in str(caught.value)
    assert not isinstance(caught.value.__cause__, NotApplicable)


def test_every_law_catches_something():
    assert {name for _, name in WRONG} == {law.__name__ for law in LAWS}


class Talkative(SelfConsistency):
    """Has probabilities of classes all the same."""

    def log_probs(self, batch):
        return torch.log_softmax(batch.flatten(1)[:, :3], dim=-1)


class Forgets(SelfConsistency):
    def save(self, folder):
        SelfConsistency(self.parts(), **{**self.describe(), "n": self.n + 1}).save(folder)


def draws(ingredients, kind=SelfConsistency, seed=0, **changes):
    given = {"n": 3, "temperature": 1.0, "top_p": 1.0, "by": "majority", "seed": seed, **changes}
    return kind(member_parts(ingredients)[:1], **given)


def draws_another_seed_each_time(ingredients):
    return draws(ingredients, seed=int(torch.randint(2**31, ())))


def says_probabilities(ingredients):
    return draws(ingredients, Talkative)


def saves_another_number(ingredients):
    return draws(ingredients, Forgets)


def breaks_at_nothing(ingredients, *, n: int = 3):
    return draws(ingredients, n=6 // n)


def does_not_write(ingredients):
    return ensemble(ingredients)


WRONG_WRITERS = [
    (draws_another_seed_each_time, "building_it_changes_nothing_and_draws_nothing"),
    (does_not_write, "building_it_changes_nothing_and_draws_nothing"),
    (says_probabilities, "it_says_why_it_has_no_probabilities"),
    (saves_another_number, "what_is_loaded_is_what_was_saved"),
    (breaks_at_nothing, "parameters_behave_or_it_says_why"),
]


@pytest.mark.parametrize(("function", "name"), WRONG_WRITERS, ids=lambda given: getattr(given, "__name__", given))
def test_a_wrong_writing_method_is_caught(function, name, declare):
    found = declare(function, family="staged", writes=True)
    with pytest.raises(BrokenLaw) as caught:
        next(law for law in WRITING_LAWS if law.__name__ == name)(found, {})
    assert caught.value.law == name
    with pytest.raises(BrokenLaw):
        check_method(found.name)


def test_every_law_of_writing_catches_something():
    assert {name for _, name in WRONG_WRITERS} == {law.__name__ for law in WRITING_LAWS}


def test_a_right_method_passes(declare):
    method = declare(ensemble_of_all)
    for law in LAWS:
        law(method, {})


def ensemble_of_all(ingredients, *, rule: Literal["linear"] = "linear") -> OutputCombination:
    parts = member_parts(ingredients)
    return OutputCombination(parts, Linear(uniform(len(parts))))


MODULE = """
import torch

from harness.methods.method import method
from harness.systems.rules import Linear
from harness.systems.staged import Staged
from harness.systems.systems import OutputCombination, member_parts

FACTS = dict(family="output", summary="Planted.", paper="-", needs={"members"})


@method("planted_right", **FACTS)
def right(ingredients):
    parts = member_parts(ingredients)
    return OutputCombination(parts, Linear(torch.ones(len(parts)) / len(parts)))


@method("planted_set", **FACTS, order_sensitive=True)
def has_the_order_of_a_set(ingredients):
    parts = member_parts(ingredients)
    drawn = torch.tensor([len(name) for name in {"x" * length for length in range(3, 30)}][: len(parts)])
    return OutputCombination(parts, Linear(drawn / drawn.sum()))
"""


@pytest.fixture
def planted(declare, tmp_path, monkeypatch):
    """A module of methods that is no installed plug-in: a new process has to find it all the same."""
    (tmp_path / "planted_methods.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "planted_methods", raising=False)
    importlib.import_module("planted_methods")


@pytest.mark.parametrize("function", [function for function, _ in WRONG], ids=lambda function: function.__name__)
def test_one_call_runs_every_law(function, declare):
    declare(function)
    with pytest.raises(BrokenLaw):
        check_method(function.__name__)


def test_no_hash_seed_changes_any_of_ours_and_an_order_taken_from_a_set_is_caught(planted):
    """In two processes for all: the first that differs is named, and what is planted comes last."""
    ours = [(found, given) for found in METHODS if not found.writes for given in found.small]
    cases = [case for case in ours if not case[0].name.startswith("planted")]
    assert len(cases) > 80
    with pytest.raises(BrokenLaw, match="method 'planted_set'") as caught:
        check_hash_seeds([*cases, *((METHODS.get(name), {}) for name in ("planted_right", "planted_set"))])
    assert caught.value.law == "other_hash_seed_same_output"


def test_one_call_tries_other_hash_seeds_too(planted, monkeypatch):
    monkeypatch.setattr(checks_of_methods, "differing", lambda cases: [None, "two"] if len(cases) == 2 else ["one"])
    with pytest.raises(BrokenLaw, match=r"method 'planted_set' with \{\}: two") as caught:
        check_method("planted_right", "planted_set")
    assert caught.value.law == "other_hash_seed_same_output"


# Staged methods, which obey the same laws.


def two_stages(ingredients, *, threshold: float = 0.8) -> Staged:
    """The first member; all of them where it is not confident."""
    first, *_ = parts = member_parts(ingredients)
    stages = [OutputCombination([first], Linear(uniform(1))), OutputCombination(parts, Linear(uniform(len(parts))))]
    return Staged(stages, [Confidence(threshold)])


def soup_first(ingredients, *, threshold: float = 0.8) -> Staged:
    """The soup; the ensemble where it is not confident."""
    soup = METHODS.get("uniform_soup")
    merged = soup.apply(ingredients, soup.validate({}))
    return Staged([merged, ensemble_of_all(ingredients)], [Confidence(threshold)])


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("threshold", [0.0, 0.8, 1.1])
@pytest.mark.parametrize(("function", "needs"), [(two_stages, {"members"}), (soup_first, {"members", "train"})])
def test_a_staged_method_obeys_every_law(function, needs, threshold, law, declare):
    law(declare(function, family="staged", needs=needs, order_sensitive=True), {"threshold": threshold})
