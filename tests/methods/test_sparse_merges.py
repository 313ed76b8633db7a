"""TIES, DARE, Breadcrumbs and DELLA as methods: a dialect from the suite to the weights, and what is told about it."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from harness.checks.pools import MLP, build_method, copied, fine_tunes, ingredients, split
from harness.evaluate.heldout import predict_module, score
from harness.merging.layers import layers_of
from harness.merging.sparsify import uniform_draws
from harness.methods.weights.task_arithmetic import GRID as SUM_GRID
from harness.methods.weights.ties import DENSITIES, GRID
from harness.registry import METHODS
from harness.types import NotApplicable
from tests.merging import by_hand
from tests.merging.peers import masks, merge_state_dicts, peers

SPARSE = ("ties", "dare", "breadcrumbs", "della")


@cache
def pool(count=3):
    return fine_tunes(count, MLP)


def weights_of(combination):
    return combination.module.state_dict()


def flat(weights):
    return torch.cat([tensor.flatten() for tensor in weights.values()])


def assert_weights(combination, expected):
    for name, tensor in weights_of(combination).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-6)


def mergekit(name, weights, **parameters):
    """mergekit on the pool's weights; its masks are those that the methods draw for their seed."""
    base, tuned = pool().base.weights, [member.weights for member in pool().members]
    seed = ingredients(pool()).seed

    def draws(tensor, member, name):
        return uniform_draws(tensor.shape, seed, member.digest, name)

    with peers(masks(base, pool().members, draws)):
        return merge_state_dicts([base, *tuned], name, base=0, parameters={"weight": weights, **parameters})


GIVEN, SIGNED = [1.0, 0.5, 0.25], [1.0, -0.5, 0.25]


@pytest.mark.parametrize(
    ("name", "weights", "given", "theirs", "parameters"),
    [
        ("ties", GIVEN, {"density": 0.3}, "ties", {"density": 0.3}),
        ("ties", SIGNED, {"density": 0.3, "divide": "none"}, "ties", {"density": 0.3, "normalize": False}),
        ("dare", SIGNED, {"density": 0.4, "scale": 0.7}, "dare_linear", {"density": 0.4, "lambda": 0.7}),
        ("dare", SIGNED, {"density": 0.4, "merge": "ties", "scale": 1.0}, "dare_ties", {"density": 0.4}),
        ("breadcrumbs", SIGNED, {"density": 0.3, "outliers": 0.1, "scale": 1.0}, "breadcrumbs", {"gamma": 0.1}),
        ("breadcrumbs", SIGNED, {"density": 0.3, "merge": "ties", "scale": 1.0}, "breadcrumbs_ties", {"gamma": 0.01}),
        ("della", GIVEN, {"density": 0.4, "scale": 1.0}, "della", {"density": 0.4}),
        ("della", SIGNED, {"density": 0.4, "merge": "linear", "scale": 1.0}, "della_linear", {"density": 0.4}),
    ],
)
def test_in_mergekits_dialect_a_method_is_mergekits(name, weights, given, theirs, parameters):
    dialect = {} if name == "breadcrumbs" else {"dialect": "mergekit"}
    found = build_method(name, pool(), weights=weights, **dialect, **given)
    assert_weights(found, mergekit(theirs, weights, **{"density": given["density"], **parameters}))


@pytest.mark.parametrize(("dialect", "reading"), [("stockpot", by_hand.ties), ("paper", by_hand.ties_by_the_authors)])
def test_ties_is_the_paper_or_its_authors_code(dialect, reading):
    found = build_method("ties", pool(), density=0.3, scale=0.5, dialect=dialect)
    base = flat(pool().base.weights).double()
    taus = [(flat(m.weights) - flat(pool().base.weights)).double().tolist() for m in pool().members]
    expected = base + 0.5 * torch.tensor(reading(taus, 0.3), dtype=torch.float64)
    torch.testing.assert_close(flat(weights_of(found)).double(), expected, rtol=1e-5, atol=1e-6)


def test_the_defaults_of_ties_are_those_it_always_had():
    expected = build_method("ties", pool(), dialect="stockpot", weights=[1.0, 1.0, 1.0])
    assert torch.equal(flat(weights_of(build_method("ties", pool()))), flat(weights_of(expected)))
    assert METHODS.get("ties").variant_parameters(METHODS.get("ties").validate({})) == {}


@pytest.mark.parametrize("dialect", ["paper", "mergekit", "peft"])
def test_a_dialect_is_a_preset_of_the_other_parameters(dialect):
    spelt_out = {
        "paper": {"keep": "kthvalue", "zero_sum": "majority_or_negative", "weigh": "none", "divide": "count"},
        "mergekit": {"scope": "tensor", "zero_sum": "positive"},
        "peft": {"scope": "tensor", "keep": "exactly", "zero_sum": "positive", "weigh": "after", "divide": "count"},
    }
    preset, named = (build_method("ties", pool(), **given) for given in ({"dialect": dialect}, spelt_out[dialect]))
    assert torch.equal(flat(weights_of(preset)), flat(weights_of(named)))
    assert not torch.equal(flat(weights_of(preset)), flat(weights_of(build_method("ties", pool()))))


# What is told.


def test_details_say_which_dialect_ran_what_surprises_in_it_and_how_often_signs_conflict():
    details = build_method("ties", pool(), density=1.0).details
    assert (details["scale"], details["dialect"]) == (1.0, "stockpot")
    assert "remarks" not in details
    taus = {n: torch.stack([m.weights[n] - t for m in pool().members]) for n, t in pool().base.weights.items()}
    conflict = {n: ((t > 0).any(dim=0) & (t < 0).any(dim=0)).double() for n, t in taus.items()}
    assert details["sign_conflict"]["model"] == pytest.approx(float(flat(conflict).mean()))
    assert list(details["sign_conflict"]["layers"]) == layers_of(taus)
    assert 0 < details["sign_conflict"]["model"] < 1

    details = build_method("ties", pool(), dialect="mergekit", divide="none").details
    assert details["dialect"] == "mergekit with divide=none"
    assert details["remarks"] == (
        "each tensor is trimmed on its own; sums of zero count as positive; "
        "sums are not divided and grow with the number of members"
    )
    details = build_method("dare", pool(), dialect="mergekit", merge="ties", scale=1.0).details
    assert (details["merge"], details["rescale"]) == ("ties", "l1")
    assert details["remarks"].startswith("each tensor keeps the L1 norm it had")
    assert "trimmed" not in details["remarks"]


@pytest.mark.parametrize("name", SPARSE)
def test_members_from_different_starts_are_warned_of(name):
    apart = [replace(member, start=f"start {k}") for k, member in enumerate(pool().members)]
    (warning,) = build_method(name, replace(pool(), members=tuple(apart)), scale=1.0).details["warnings"]
    assert "3 different initialisations" in warning


# The scale.


@pytest.mark.parametrize(
    ("name", "parameters", "grid"),
    [
        ("ties", {"divide": "none"}, SUM_GRID),
        ("dare", {}, SUM_GRID),
        ("dare", {"merge": "ties"}, GRID),
        ("breadcrumbs", {}, SUM_GRID),
        ("della", {}, GRID),
    ],
)
def test_the_scale_is_searched_on_heldout(name, parameters, grid):
    found = build_method(name, pool(), **{"scale": "heldout", **parameters})
    curve = found.details["curve"]
    np.testing.assert_allclose([p["scale"] for p in curve], grid)
    best = min(curve, key=lambda p: (-p["accuracy"], p["nll"]))
    assert found.details["scale"] == best["scale"]
    heldout = split("heldout")
    accuracy, likely = score(predict_module(found.module, heldout), heldout.labels)
    assert (accuracy, -likely) == (best["accuracy"], best["nll"])
    fixed = build_method(name, pool(), **parameters, scale=best["scale"])
    assert torch.equal(flat(weights_of(fixed)), flat(weights_of(found)))


@pytest.mark.parametrize("scale", [1.0, "heldout"])
def test_the_density_is_searched_on_heldout_with_the_scale_that_is_given_or_its_own_best(scale):
    found = build_method("ties", pool(), density="heldout", scale=scale)
    curve, heldout = found.details["density_curve"], split("heldout")
    assert [point["density"] for point in curve] == DENSITIES
    each = [build_method("ties", pool(), density=density, scale=scale) for density in DENSITIES]
    scores = [score(predict_module(one.module, heldout), heldout.labels) for one in each]
    assert [(p["scale"], (p["accuracy"], -p["nll"])) for p in curve] == [
        (one.details["scale"], s) for one, s in zip(each, scores, strict=True)
    ]
    best = max(range(len(each)), key=scores.__getitem__)
    assert found.details["density"] == DENSITIES[best]
    assert torch.equal(flat(weights_of(found)), flat(weights_of(each[best])))
    tried = len(GRID) if scale == "heldout" else 0
    assert found.details["heldout_evaluations"] == (1 + tried) * len(DENSITIES)
    assert found.details["search_seconds"] > 0


@pytest.mark.parametrize("name", SPARSE)
def test_scale_zero_is_the_base_bit_for_bit(name):
    found = weights_of(build_method(name, pool(), scale=0.0))
    assert all(torch.equal(found[n], t) for n, t in pool().base.weights.items())


# Random masks.


@pytest.mark.parametrize("name", ["dare", "della"])
def test_masks_are_drawn_by_the_variants_seed_and_the_members_content(name):
    method = METHODS.get(name)
    full = method.validate({"scale": 1.0})

    def built(members, seed):
        given = ingredients(replace(pool(), members=members), tuple(method.needs), seed=seed)
        return flat(weights_of(method.apply(given, full)))

    members = pool().members
    expected = built(members, 5)
    assert not torch.equal(built(members, 6), expected)
    renamed = tuple(replace(member, name=f"other {k}") for k, member in enumerate(members))
    assert torch.equal(built(renamed, 5), expected)
    torch.testing.assert_close(built(members[::-1], 5), expected)
    # one member alone has the mask it has among others: the sum of those alone is the sum of all
    if name == "dare":
        base = flat(pool().base.weights)
        alone = sum(built((member,), 5) - base for member in members)
        torch.testing.assert_close(base + alone, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["dare", "della"])
def test_with_everything_kept_a_sum_is_task_arithmetic(name):
    found = build_method(name, pool(), density=1.0, merge="linear", scale=0.3)
    expected = build_method("task_arithmetic", pool(), scale=0.3)
    torch.testing.assert_close(flat(weights_of(found)), flat(weights_of(expected)))


# What is refused.


@pytest.mark.parametrize(("density", "epsilon"), [(0.1, 0.15), (0.9, 0.15), (0.15, 0.15)])
def test_probabilities_beyond_zero_and_one_are_refused(density, epsilon):
    with pytest.raises(NotApplicable, match="both must be between 0 and 1"):
        build_method("della", pool(), density=density, epsilon=epsilon)


@pytest.mark.parametrize("name", SPARSE)
def test_weights_are_one_for_each_member(name):
    dialect = {} if name == "breadcrumbs" else {"dialect": "mergekit"}
    with pytest.raises(NotApplicable, match="2 weights are given for 3 members"):
        build_method(name, pool(), weights=[1.0, 2.0], **dialect)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("ties", {}), ("ties", {"dialect": "mergekit"}), ("della", {}), ("dare", {"divide": "weights"})],
)
def test_a_negative_weight_that_would_be_divided_by_is_refused(name, parameters):
    with pytest.raises(NotApplicable, match="take divide=none"):
        build_method(name, pool(), weights=[1.0, -0.5, 1.0], **parameters)


@pytest.mark.parametrize("name", ["ties", "dare"])
def test_the_paper_merges_without_weights(name):
    merge = {} if name == "ties" else {"merge": "ties"}
    with pytest.raises(NotApplicable, match="'paper' has no weights"):
        build_method(name, pool(), dialect="paper", weights=[1.0, 1.0, 1.0], **merge)


@pytest.mark.parametrize("name", SPARSE)
def test_a_pool_without_a_base_has_no_task_vectors(name):
    with pytest.raises(NotApplicable, match="has no base model"):
        build_method(name, replace(pool(), base=None))


@pytest.mark.parametrize("name", SPARSE)
def test_members_of_another_architecture_than_the_base_are_refused(name):
    with pytest.raises(NotApplicable, match="different architectures"):
        build_method(name, replace(pool(), base=fine_tunes(1).base))


# Half precision.


@pytest.mark.parametrize("name", [*SPARSE, "task_arithmetic"])
def test_half_precision_is_rounded_once(name):
    """Task arithmetic once rounded the sum of the task vectors, and then the model again."""

    def cast(members, dtype):
        return [replace(m, weights={n: t.to(dtype) for n, t in m.weights.items()}) for m in members]

    halves = cast((pool().base, *pool().members), torch.bfloat16)
    wide = cast(halves, torch.float32)
    half_pool, wide_pool = (replace(pool(), base=ms[0], members=tuple(ms[1:])) for ms in (halves, wide))
    found = weights_of(build_method(name, half_pool, scale=0.3))
    expected = copied(weights_of(build_method(name, wide_pool, scale=0.3)))
    assert all(torch.equal(found[n], t.bfloat16().float()) for n, t in expected.items())
