"""Values that mergekit refuses, or of which it makes NaN, are refused by name before anything is merged."""

from dataclasses import replace

import pytest
import torch

from harness.errors import BadInput
from harness.streaming.checking import check
from harness.streaming.definitions import combine
from harness.streaming.rules import RULES
from tests.streaming.steps import mergekit, models, step_of

NAME = "model.layers.3.mlp.up_proj.weight"

REFUSED = [
    ("linear", {"weight": [0.5, -0.5]}, "weights sum to 0"),
    ("linear", {"weight": [0.0, 0.0]}, "weights sum to 0"),
    ("linear", {"weight": [0.5, float("nan")], "normalize": False}, "weight is nan"),
    ("slerp", {"t": float("inf")}, "t is inf"),
    ("dare_ties", {"weight": 1.0, "density": -0.1}, "density -0.1"),
    ("della", {"weight": 1.0, "density": 0.9, "epsilon": 0.15}, "density 0.9 and epsilon 0.15"),
    ("della_linear", {"weight": 1.0, "density": 0.1, "epsilon": 0.1}, "density 0.1 and epsilon 0.1"),
    ("della", {"weight": 1.0, "density": 0.5, "epsilon": -0.7}, "density 0.5 and epsilon -0.7"),
]


@pytest.mark.parametrize(("rule", "given", "said"), REFUSED)
def test_it_is_refused_with_the_tensor_and_the_parameter(rule, given, said):
    step = step_of(rule, 2, name=NAME, **given)
    with pytest.raises(BadInput) as raised:
        check(step)
    assert str(raised.value).startswith(f"{NAME}: ")
    assert said in str(raised.value)


@pytest.mark.parametrize(("rule", "given", "said"), REFUSED)
def test_mergekit_fails_as_well_or_makes_what_is_no_number(rule, given, said):
    try:
        merged = mergekit(step_of(rule, 2, **given), models(2, (4, 6)), settle=False)
    except (RuntimeError, ValueError):
        return
    assert not torch.isfinite(merged).all()


def test_weights_that_sum_to_rounding_sum_to_nothing():
    with pytest.raises(BadInput, match="weights sum to 0"):
        check(step_of("linear", 3, weight=[0.1, 0.2, -0.3]))  # 5.6e-17 in float64, 0 in float32
    check(step_of("linear", 3, weight=[0.1, 0.2, -0.2999]))
    check(step_of("linear", 3, weight=[0.1, 0.2, -0.3], normalize=False))


def test_a_negative_share_of_outliers_is_refused():
    """With which mergekit keeps fewer entries than the density says."""
    with pytest.raises(BadInput, match=r"gamma -0\.5 is negative"):
        check(step_of("breadcrumbs", 2, weight=1.0, density=0.5, gamma=-0.5))


def test_an_unknown_rule_is_named_with_the_nearest():
    with pytest.raises(BadInput, match="did you mean 'karcher'"):
        check(replace(step_of("karcher", 2), rule="karhcer"))


TAKEN = [{"density": 0.0}, {"density": 1.0, "epsilon": 0.9}, {"density": 0.5, "epsilon": 0.49}]


@pytest.mark.parametrize("given", TAKEN)
def test_what_mergekit_takes_is_taken(given):
    step, tensors = step_of("della", 2, weight=1.0, **given), models(2, (4, 6))
    check(step)
    assert torch.isfinite(mergekit(step, tensors)).all()
    assert torch.isfinite(combine(step, tensors)).all()


@pytest.mark.parametrize("rule", RULES)
def test_the_defaults_are_taken(rule):
    needed = {p.name: 0.5 for p in RULES[rule].parameters if p.name in ("weight", "t")}
    check(step_of(rule, RULES[rule].most or 3, **needed))
