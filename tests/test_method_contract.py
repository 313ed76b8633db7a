"""Every law on every registered method; and methods that break one law each, which must be caught.

A law is a function ``check_...(method, parameters)`` that knows no method by name: what differs between methods is
declared where they are registered.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from harness.cost import counters, flops
from harness.errors import BadInput
from harness.merging.arithmetic import average
from harness.methods.method import Method, describe_type, method
from harness.models.weights import module_with
from harness.registry import METHODS
from harness.systems.acceptance import Confidence
from harness.systems.dropout import hash_of
from harness.systems.fitting import uniform
from harness.systems.parts import MemberPart
from harness.systems.rules import Linear, LogLinear
from harness.systems.staged import Staged
from harness.systems.systems import OutputCombination, SingleModel, load_combination, member_parts
from harness.types import Combination, NotApplicable, Pool
from tests.small_pools import CNN, copies, ingredients, mixed, on_test, plain_predict, pool_for, split

MORE_THAN_MEMBERS = 9
"""For whole-number parameters: more than there are members, experts or checkpoints, and still quick."""


def built(method: Method, parameters: Mapping[str, Any], pool: Pool, **changes: Any) -> Combination:
    return method.apply(ingredients(pool, tuple(method.needs), **changes), method.validate(parameters))


def fingerprint(pool: Pool) -> list[tuple[str, str, str]]:
    models = [*pool.members, *([pool.base] if pool.base else [])]
    return [(m.name, name, hash_of(m.weights[name])) for m in models for name in m.weights]


def assert_distribution(log_probs: Tensor) -> None:
    assert log_probs.dtype in (torch.float32, torch.float64)
    assert not torch.isnan(log_probs).any()
    assert (log_probs <= 1e-5).all()
    torch.testing.assert_close(log_probs.double().exp().sum(-1), torch.ones(len(log_probs)).double(), atol=1e-5, rtol=0)


def check_what_it_was_given_is_unchanged(method, parameters):
    pool = pool_for(method)
    splits = (split("train"), split("heldout"))
    before = fingerprint(pool), [hash_of(s.inputs) + hash_of(s.labels) for s in splits]
    on_test(built(method, parameters, pool))
    assert (fingerprint(pool), [hash_of(s.inputs) + hash_of(s.labels) for s in splits]) == before


def check_global_random_state_is_unchanged(method, parameters):
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    on_test(built(method, parameters, pool_for(method)))
    assert torch.equal(torch.random.get_rng_state(), before)


def check_same_seed_same_output(method, parameters):
    torch.manual_seed(1)
    first = on_test(built(method, parameters, pool_for(method)))
    torch.manual_seed(2)
    assert torch.equal(on_test(built(method, parameters, pool_for(method))), first)


def check_same_batch_same_output(method, parameters):
    combination = built(method, parameters, pool_for(method))
    batch = split("test").inputs[:20]
    with torch.inference_mode():
        first = combination.log_probs(batch)
        combination.log_probs(split("heldout").inputs)
        assert torch.equal(combination.log_probs(batch), first)


def check_finite_and_normalised(method, parameters):
    assert_distribution(on_test(built(method, parameters, pool_for(method))))


class Untouchable:
    """Stands where a split or a base was not declared."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the method touched '{name}' of an input that it did not declare")


def check_undeclared_inputs_are_untouched(method, parameters):
    pool = pool_for(method)
    expected = on_test(built(method, parameters, pool))
    hidden: dict[str, Any] = {f"{n}_": Untouchable() for n in ("train", "heldout") if n not in method.needs}
    if "base" not in method.needs:
        pool = Pool(pool.name, pool.kind, pool.members, None)
    assert torch.equal(on_test(built(method, parameters, pool, **hidden)), expected)


def check_members_it_does_not_name_are_untouched(method, parameters):
    pool = pool_for(method)
    if (named := method.uses(method.validate(parameters))) is None:
        return
    expected = on_test(built(method, parameters, pool))
    members = [m if i in named else replace(m, weights=Untouchable()) for i, m in enumerate(pool.members)]
    assert torch.equal(on_test(built(method, parameters, replace(pool, members=tuple(members)))), expected)


def check_member_order_is_irrelevant(method, parameters):
    if method.order_sensitive(method.validate(parameters)):
        return
    pool = pool_for(method)
    expected = on_test(built(method, parameters, pool))
    for order in ((2, 1, 0), (1, 2, 0)):
        found = on_test(built(method, parameters, pool.subset(order)))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def check_identical_members_change_nothing(method, parameters):
    if not method.identical_members_unchanged(method.validate(parameters)):
        return
    pool = copies(_without_batchnorm(method))
    expected = plain_predict(MemberPart(pool.members[0]), split("test"))
    torch.testing.assert_close(on_test(built(method, parameters, pool)), expected, atol=1e-4, rtol=1e-4)


def _without_batchnorm(method: Method) -> Pool:
    """A pool for the method whose members have no BatchNorm: its statistics are rightly measured after every merge."""
    pool, plain = pool_for(method), pool_for(replace(method, pool="any"))
    members = [
        replace(m, provenance=of.provenance, name=of.name)
        for m, of in zip(plain.members, pool.members, strict=True)
    ]
    return Pool("copies", pool.kind, tuple(members), plain.base)


def check_one_member_works_or_says_why(method, parameters):
    assert_works_or_says_why(method, parameters, pool_for(method, 1))


def check_no_member_says_why(method, parameters):
    pool = pool_for(method)
    with pytest.raises(NotApplicable):
        built(method, parameters, Pool(pool.name, pool.kind, (), pool.base))


def check_other_architectures_work_or_say_why(method, parameters):
    pool = mixed()
    assert_works_or_says_why(method, parameters, Pool("mixed", pool.kind, pool.members, pool.members[0]))


def check_nan_weights_are_never_a_number(method, parameters):
    pool = pool_for(method)
    expected = on_test(built(method, parameters, pool))
    spoiled = [replace(m, weights={n: t * torch.nan for n, t in m.weights.items()}) for m in pool.members]
    base = replace(pool.base, weights=spoiled[0].weights) if pool.base else None
    try:
        found = on_test(built(method, parameters, Pool(pool.name, pool.kind, tuple(spoiled), base)))
    except NotApplicable as reason:
        assert "NaN" in str(reason)
        return
    # what is left: the result is NaN, which no score accepts, or no weight of any member is in it
    assert torch.isnan(found).any() or torch.equal(found, expected)


def assert_works_or_says_why(method, parameters, pool: Pool) -> None:
    try:
        found = on_test(built(method, parameters, pool))
    except NotApplicable as reason:
        assert len(str(reason)) > 10
        return
    assert_distribution(found)


def check_extreme_parameters_behave_or_say_why(method, parameters):
    full = method.validate(parameters)
    for name, field in method.parameters.model_fields.items():
        for value in _extremes(field):
            try:
                combination = built(method, {**full, name: value}, pool_for(method))
            except (NotApplicable, BadInput) as reason:
                assert len(str(reason)) > 10
                continue
            assert_distribution(on_test(combination))


def _extremes(field: Any) -> list[Any]:
    schema = describe_type(field)
    values: list[Any] = []
    if "int" in schema:
        values += [-1, 0, 1, MORE_THAN_MEMBERS]
    if "float" in schema:
        values += [-100.0, -1.0, 0.0, 1e-6, 1.0, 100.0]
    if "list[" in schema:
        values += [[], [0.0, 0.0, 0.0], [1.0], [0.0, 1.0, 0.0]]
    return values


def check_save_and_load_round_trip(method, parameters):
    pool = pool_for(method)
    combination = built(method, parameters, pool)
    with TemporaryDirectory() as folder:
        combination.save(Path(folder))
        suffixes = {path.suffix for path in Path(folder).rglob("*") if path.is_file()}
        assert suffixes <= {".json", ".safetensors"}  # nothing is a pickle
        again = load_combination(Path(folder), pool)
        assert torch.equal(on_test(again), on_test(combination))


def check_fast_path_equals_slow_path(method, parameters):
    combination = built(method, parameters, pool_for(method))
    assert len(combination.parts()) >= 1
    if not combination.replays:
        return
    log_probs, calls = combination.replay([plain_predict(part, split("test")) for part in combination.parts()])
    torch.testing.assert_close(log_probs, on_test(combination), atol=1e-6, rtol=1e-6)
    assert torch.equal(calls, went_through_test(combination)[1])


def went_through_test(combination: Combination) -> tuple[Tensor, Tensor]:
    """``Combination.run`` over the test split: log-probabilities [N, C] and calls [N, parts]."""
    with torch.inference_mode():
        return combination.run(split("test").inputs)


def check_run_says_what_log_probs_says(method, parameters):
    combination = built(method, parameters, pool_for(method))
    log_probs, calls = went_through_test(combination)
    assert torch.equal(log_probs, on_test(combination))
    assert calls.shape == (len(log_probs), len(combination.parts()))
    assert not calls.is_floating_point()


def check_calls_add_up_to_the_cost_that_is_reported(method, parameters):
    """What its networks really run on, example by example, is what it says; the costs are the means over that."""
    combination = built(method, parameters, pool_for(method))
    inputs, parts = split("test").inputs, combination.parts()
    rows: Counter[int] = Counter()
    modules = {id(part.module): part.module for part in parts}  # passes with dropout share one
    hooks = [
        module.register_forward_hook(lambda module, given, _: rows.update({id(module): len(given[0])}))
        for module in modules.values()
    ]
    _, calls = went_through_test(combination)
    for hook in hooks:
        hook.remove()
    said: Counter[int] = Counter()
    for part, count in zip(parts, calls.sum(dim=0).tolist(), strict=True):
        said.update({id(part.module): count})
    assert rows == said
    found = counters.counted(combination, calls, inputs)
    each = [counters.parameters_active(SingleModel(CNN, part.module)) for part in parts]
    mean = calls.double().mean(dim=0)
    assert found["params_active"] == pytest.approx(float(mean @ torch.tensor(each, dtype=torch.float64)))
    really = flops.count(lambda: combination.log_probs(inputs)) / len(inputs)
    assert found["flops_per_example"] == pytest.approx(really)
    assert [one["mean"] for one in found["calls"]] == pytest.approx(mean.tolist())


LAWS: list[Callable[[Method, Mapping[str, Any]], None]] = [
    value for name, value in sorted(globals().items()) if name.startswith("check_")
]
CASES = [
    pytest.param(method.name, parameters, id=f"{method.name}-{i}")
    for method in METHODS.all().values()
    for i, parameters in enumerate(method.small)
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_method(name, parameters, law):
    law(METHODS.get(name), parameters)


def test_hash_seed_changes_nothing():
    """Two processes with another PYTHONHASHSEED: an order taken from a set or a dict of names would show."""
    script = (
        "from tests.test_method_contract import *\n"
        "for case in CASES:\n"
        "    name, parameters = case.values\n"
        "    method = METHODS.get(name)\n"
        "    print(case.id, hash_of(on_test(built(method, parameters, pool_for(method)))))\n"
    )

    def start(seed: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-c", script],
            env=environment,
            cwd=Path(__file__).parent.parent,
            stdout=subprocess.PIPE,
            text=True,
        )

    outputs = [process.communicate()[0] for process in [start("1"), start("2")]]
    assert outputs[0].count("\n") == len(CASES)
    assert outputs[0] == outputs[1]


def test_every_method_reads_like_one():
    for found in METHODS:
        assert found.summary.endswith(".")
        assert found.paper
        assert method.small
        assert method.needs <= {"members", "base", "train", "heldout"}


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


WRONG: list[tuple[Callable[..., Combination], Callable[..., None]]] = [
    (mutates_a_member, check_what_it_was_given_is_unchanged),
    (depends_on_order, check_member_order_is_irrelevant),
    (takes_the_first, check_member_order_is_irrelevant),
    (draws_from_the_global_generator, check_same_seed_same_output),
    (reseeds_the_world, check_global_random_state_is_unchanged),
    (is_not_normalised, check_finite_and_normalised),
    (peeks_at_heldout, check_undeclared_inputs_are_untouched),
    (peeks_at_the_base, check_undeclared_inputs_are_untouched),
    (has_two_paths, check_fast_path_equals_slow_path),
    (averages_what_cannot_be, check_other_architectures_work_or_say_why),
    (reads_past_the_declared, check_no_member_says_why),
    (forgets_a_member, check_identical_members_change_nothing),
    (saves_something_else, check_save_and_load_round_trip),
    (dies_at_the_edge, check_extreme_parameters_behave_or_say_why),
    (drops_out, check_same_batch_same_output),
    (blesses_nan, check_nan_weights_are_never_a_number),
    (needs_two, check_one_member_works_or_says_why),
    (touches_more_than_it_names, check_members_it_does_not_name_are_untouched),
    (hides_calls, check_calls_add_up_to_the_cost_that_is_reported),
    (says_two_things, check_run_says_what_log_probs_says),
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
            "needs": {"members"},
            "identical_members_unchanged": True,
            "uses": lambda parameters: [0] if function is touches_more_than_it_names else None,
        }
        method(name, **{**given, **changes})(function)
        return METHODS.get(name)

    return register


@pytest.mark.parametrize(("function", "law"), WRONG, ids=lambda f: f.__name__)
def test_a_wrong_method_is_caught(function, law, declare):
    method = declare(function)
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        law(method, {})
    assert not isinstance(caught.value, NotApplicable)


def test_every_law_catches_something():
    assert {law for _, law in WRONG} == set(LAWS)


def test_a_right_method_passes(declare):
    method = declare(ensemble_of_all)
    for law in LAWS:
        law(method, {})


def ensemble_of_all(ingredients, *, rule: Literal["linear"] = "linear") -> OutputCombination:
    parts = member_parts(ingredients)
    return OutputCombination(parts, Linear(uniform(len(parts))))


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
