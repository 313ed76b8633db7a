"""The laws of methods: what every registered method owes its caller, on pools of three small networks.

A law knows no method by name: what differs between methods is declared where they are registered.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from harness.checks.hash_seeds import differing
from harness.checks.law import BrokenLaw, law, laws, require
from harness.checks.pools import CNN, built, copies, mixed, on_test, plain_predict, pool_for, split
from harness.cost import counters, flops
from harness.errors import BadInput
from harness.methods.method import Method, describe_type
from harness.registry import METHODS, module_of
from harness.systems.dropout import hash_of
from harness.systems.parts import MemberPart
from harness.systems.systems import SingleModel, load_combination
from harness.types import Combination, NotApplicable, Pool

Parameters = Mapping[str, Any]
MORE_THAN_MEMBERS = 9
"""For whole-number parameters: more than there are members, experts or checkpoints, and still quick."""
SHORTEST_REASON = 10


def check_method(*names: str) -> None:
    """Run every law on registered methods, with each of the parameter sets that they declare as small.

    Several methods share the two processes that one of the laws takes, which are most of the time.

    Raises:
        BrokenLaw: the first that does not hold.
    """
    methods = [METHODS.get(name) for name in names]
    for method in methods:
        for parameters in method.small:
            for each in laws("writing method" if method.writes else "method"):
                each(method, parameters)
    if cases := [(method, parameters) for method in methods if not method.writes for parameters in method.small]:
        check_hash_seeds(cases)


def check_hash_seeds(cases: list[tuple[Method, Parameters]]) -> None:
    """An order taken from a set or a dict of names would show: outputs are equal under another PYTHONHASHSEED.

    It needs two processes, so that it is run on many methods at once, each with parameters.

    Raises:
        BrokenLaw: the first method whose output differs.
    """
    given = [(module_of(method), method.name, dict(parameters)) for method, parameters in cases]
    for (_, name, parameters), problem in zip(given, differing(given), strict=True):
        if problem:
            raise BrokenLaw("other_hash_seed_same_output", f"method '{name}' with {parameters}: {problem}")


_looked_at: list[tuple[Method, Parameters, Combination]] = []
"""The last that was built for ``_usual``."""


def _usual(method: Method, parameters: Parameters) -> Combination:
    """What a method makes of the pool that it is about, for laws that only look at it: they share one.

    That two are equal, and that none is changed by running it, are laws themselves, which build their own.
    """
    if not _looked_at or _looked_at[0][0] is not method or _looked_at[0][1] != parameters:
        _looked_at[:] = [(method, dict(parameters), built(method, parameters, pool_for(method)))]
    return _looked_at[0][2]


@law("method")
def what_it_was_given_is_unchanged(method: Method, parameters: Parameters) -> None:
    """Building and running leaves members, base and splits as they were, to the bit."""
    pool = pool_for(method)
    splits = (split("train"), split("heldout"))
    before = fingerprint(pool), [hash_of(s.inputs) + hash_of(s.labels) for s in splits]
    on_test(built(method, parameters, pool))
    require(fingerprint(pool) == before[0], "the weights of a member or of the base have changed")
    require([hash_of(s.inputs) + hash_of(s.labels) for s in splits] == before[1], "a split has changed")


@law("method")
def global_random_state_is_unchanged(method: Method, parameters: Parameters) -> None:
    """The global generator is neither drawn from nor seeded."""
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    on_test(built(method, parameters, pool_for(method)))
    require(torch.equal(torch.random.get_rng_state(), before), "torch's global generator is in another state")


@law("method")
def same_seed_same_output(method: Method, parameters: Parameters) -> None:
    """Equal ingredients give equal outputs, to the bit, whatever the global generator's state."""
    torch.manual_seed(1)
    first = on_test(built(method, parameters, pool_for(method)))
    torch.manual_seed(2)
    again = on_test(built(method, parameters, pool_for(method)))
    require(torch.equal(again, first), "built twice, it says two things")


@law("method")
def same_batch_same_output(method: Method, parameters: Parameters) -> None:
    """What is said of a batch does not depend on the batches before it."""
    combination = built(method, parameters, pool_for(method))
    batch = split("test").inputs[:20]
    with torch.inference_mode():
        first = combination.log_probs(batch)
        combination.log_probs(split("heldout").inputs)
        require(torch.equal(combination.log_probs(batch), first), "run twice on one batch, it says two things")


@law("method")
def finite_and_normalised(method: Method, parameters: Parameters) -> None:
    """Outputs are log-probabilities: no NaN, none above 0, and each row sums to 1."""
    _require_distribution(on_test(_usual(method, parameters)))


class _Untouchable:
    """Stands where a split, a base or weights were not declared."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"it touched '{name}' of an input that it did not declare")


@law("method")
def undeclared_inputs_are_untouched(method: Method, parameters: Parameters) -> None:
    """Splits and a base that it does not declare under ``needs`` need not be there."""
    pool = pool_for(method)
    expected = on_test(_usual(method, parameters))
    hidden: dict[str, Any] = {f"{n}_": _Untouchable() for n in ("train", "heldout") if n not in method.needs}
    if "base" not in method.needs:
        pool = Pool(pool.name, pool.kind, pool.members, None)
    found = on_test(built(method, parameters, pool, **hidden))
    require(torch.equal(found, expected), f"its output changes without what it does not declare ({set(method.needs)})")


@law("method")
def members_it_does_not_name_are_untouched(method: Method, parameters: Parameters) -> None:
    """Where ``uses`` names members, the weights of all others need not be there."""
    pool = pool_for(method)
    if (named := method.uses(method.validate(parameters))) is None:
        return
    expected = on_test(_usual(method, parameters))
    hidden: Any = _Untouchable()
    members = [m if i in named else replace(m, weights=hidden) for i, m in enumerate(pool.members)]
    found = on_test(built(method, parameters, replace(pool, members=tuple(members))))
    require(torch.equal(found, expected), f"its output changes without the members besides {list(named)}")


@law("method")
def member_order_is_irrelevant(method: Method, parameters: Parameters) -> None:
    """Members in another order give the same output, unless ``order_sensitive`` says otherwise."""
    if method.order_sensitive(method.validate(parameters)):
        return
    pool = pool_for(method)
    expected = on_test(_usual(method, parameters))
    for order in ((2, 1, 0), (1, 2, 0)):
        _require_close(on_test(built(method, parameters, pool.subset(order))), expected, f"members in order {order}")


@law("method")
def identical_members_change_nothing(method: Method, parameters: Parameters) -> None:
    """Where ``identical_members_unchanged`` says so, copies of one model give what that model gives."""
    if not method.identical_members_unchanged(method.validate(parameters)):
        return
    pool = copies(pool_for(method))
    expected = plain_predict(MemberPart(pool.members[0]), split("test"))
    _require_close(on_test(built(method, parameters, pool)), expected, "copies of one member")


@law("method")
def one_member_works_or_says_why(method: Method, parameters: Parameters) -> None:
    """A pool of one member gives a distribution, or ``NotApplicable`` with a reason."""
    require_works_or_says_why(method, parameters, pool_for(method, 1))


@law("method")
def no_member_says_why(method: Method, parameters: Parameters) -> None:
    """An empty pool raises ``NotApplicable``."""
    pool = pool_for(method)
    try:
        built(method, parameters, Pool(pool.name, pool.kind, (), pool.base))
    except NotApplicable:
        return
    raise AssertionError("it was built from an empty pool")


@law("method")
def other_architectures_work_or_say_why(method: Method, parameters: Parameters) -> None:
    """Members of two architectures give a distribution, or ``NotApplicable`` with a reason."""
    pool = mixed()
    require_works_or_says_why(method, parameters, Pool("mixed", pool.kind, pool.members, pool.members[0]))


@law("method")
def nan_weights_are_never_a_number(method: Method, parameters: Parameters) -> None:
    """Members whose weights are NaN give NaN, which no score accepts, or ``NotApplicable`` that names NaN."""
    pool = pool_for(method)
    expected = on_test(_usual(method, parameters))
    spoiled = [replace(m, weights={n: t * torch.nan for n, t in m.weights.items()}) for m in pool.members]
    base = replace(pool.base, weights=spoiled[0].weights) if pool.base else None
    try:
        found = on_test(built(method, parameters, Pool(pool.name, pool.kind, tuple(spoiled), base)))
    except NotApplicable as reason:
        require("NaN" in str(reason), f"the reason does not name NaN: {reason}")
        return
    # equal: no weight of any member is in what it says
    harmless = bool(torch.isnan(found).any()) or torch.equal(found, expected)
    require(harmless, "members of NaN give numbers")


@law("method")
def extreme_parameters_behave_or_say_why(method: Method, parameters: Parameters) -> None:
    """Numbers and lists far out of the ordinary give a distribution, or are refused with a reason."""
    full = method.validate(parameters)
    for name, field in method.parameters.model_fields.items():
        for value in extremes(describe_type(field)):
            try:
                combination = built(method, {**full, name: value}, pool_for(method))
            except (NotApplicable, BadInput) as reason:
                require(len(str(reason)) > SHORTEST_REASON, f"{name} = {value} is refused without a reason: '{reason}'")
                continue
            _require_distribution(on_test(combination), f"with {name} = {value}, ")


def extremes(words: str) -> list[Any]:
    """Values far out of the ordinary for a parameter of a type, which ``describe_type`` says in words."""
    values: list[Any] = []
    if "int" in words:
        values += [-1, 0, 1, MORE_THAN_MEMBERS]
    if "float" in words:
        values += [-100.0, -1.0, 0.0, 1e-6, 1.0, 100.0]
    if "list[" in words:
        values += [[], [0.0, 0.0, 0.0], [1.0], [0.0, 1.0, 0.0]]
    return values


@law("method")
def save_and_load_round_trip(method: Method, parameters: Parameters) -> None:
    """What was saved, without any pickle, and loaded again says the same, to the bit."""
    combination = _usual(method, parameters)
    with TemporaryDirectory() as folder:
        combination.save(Path(folder))
        suffixes = {path.suffix for path in Path(folder).rglob("*") if path.is_file()}
        require(suffixes <= {".json", ".safetensors"}, f"it saves files of other kinds: {sorted(suffixes)}")
        again = load_combination(Path(folder), pool_for(method))
        require(torch.equal(on_test(again), on_test(combination)), "saved and loaded, it says something else")


@law("method")
def fast_path_equals_slow_path(method: Method, parameters: Parameters) -> None:
    """What it says of predictions that were kept (``replay``) is what it says when its models run, calls too."""
    combination = _usual(method, parameters)
    require(len(combination.parts()) >= 1, "it runs no model")
    if not combination.replays:
        return
    log_probs, calls = combination.replay([plain_predict(part, split("test")) for part in combination.parts()])
    torch.testing.assert_close(log_probs, on_test(combination), atol=1e-6, rtol=1e-6)
    require(torch.equal(calls, _run_on_test(combination)[1]), "replayed, it says to have called other models")


@law("method")
def run_says_what_log_probs_says(method: Method, parameters: Parameters) -> None:
    """``run`` gives the log-probabilities and whole numbers of calls, one for each example and part."""
    combination = _usual(method, parameters)
    log_probs, calls = _run_on_test(combination)
    require(torch.equal(log_probs, on_test(combination)), "'run' says something else than 'log_probs'")
    shape = len(log_probs), len(combination.parts())
    require(calls.shape == shape, f"calls have the shape {tuple(calls.shape)}, not {shape}")
    require(not calls.is_floating_point(), f"calls are {calls.dtype}, and no whole numbers")


@law("method")
def calls_add_up_to_the_cost_that_is_reported(method: Method, parameters: Parameters) -> None:
    """What its networks really run on, example by example, is what it says; the costs are the means over that."""
    combination = _usual(method, parameters)
    inputs, parts = split("test").inputs, combination.parts()
    rows: Counter[int] = Counter()
    modules = {id(part.module): part.module for part in parts}  # passes with dropout share one
    hooks = [
        module.register_forward_hook(lambda module, given, _: rows.update({id(module): len(given[0])}))
        for module in modules.values()
    ]
    _, calls = _run_on_test(combination)
    for hook in hooks:
        hook.remove()
    said: Counter[int] = Counter()
    for part, count in zip(parts, calls.sum(dim=0).tolist(), strict=True):
        said.update({id(part.module): count})
    require(rows == said, f"its networks ran on {sorted(rows.values())} examples; it says {sorted(said.values())}")
    found = counters.counted(combination, calls, inputs)
    each = [counters.parameters_active(SingleModel(CNN, part.module)) for part in parts]
    mean = calls.double().mean(dim=0)
    really = {
        "params_active": float(mean @ torch.tensor(each, dtype=torch.float64)),
        "flops_per_example": flops.count(lambda: combination.log_probs(inputs)) / len(inputs),
    }
    for name, expected in really.items():
        require(math.isclose(found[name], expected, rel_tol=1e-6), f"{name} is {found[name]}, and really {expected}")
    means = torch.tensor([one["mean"] for one in found["calls"]], dtype=torch.float64)
    require(torch.allclose(means, mean), f"mean calls are {means.tolist()}, and really {mean.tolist()}")


def _run_on_test(combination: Combination) -> tuple[Tensor, Tensor]:
    """``Combination.run`` over the test split: log-probabilities [N, C] and calls [N, parts]."""
    with torch.inference_mode():
        return combination.run(split("test").inputs)


def fingerprint(pool: Pool) -> list[tuple[str, str, str]]:
    """What the weights of a pool are, to the bit."""
    models = [*pool.members, *([pool.base] if pool.base else [])]
    return [(m.name, name, hash_of(m.weights[name])) for m in models for name in m.weights]


def _require_close(output: Tensor, expected: Tensor, where: str) -> None:
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4, msg=lambda words: f"{where}: {words}")


def _require_distribution(log_probs: Tensor, where: str = "") -> None:
    require(log_probs.dtype in (torch.float32, torch.float64), f"{where}log-probabilities are {log_probs.dtype}")
    require(not torch.isnan(log_probs).any(), f"{where}log-probabilities hold NaN")
    require((log_probs <= 1e-5).all(), f"{where}log-probabilities are above 0")
    off = float((log_probs.double().exp().sum(-1) - 1).abs().max())
    require(off <= 1e-5, f"{where}probabilities do not sum to 1: off by {off:.2g}")


def require_works_or_says_why(method: Method, parameters: Parameters, pool: Pool, **changes: Any) -> None:
    """A distribution on test, or ``NotApplicable`` with a reason; ``changes`` are fields of the ingredients."""
    try:
        found = on_test(built(method, parameters, pool, **changes))
    except NotApplicable as reason:
        require(len(str(reason)) > SHORTEST_REASON, f"it is not applicable without a reason: '{reason}'")
        return
    _require_distribution(found)
