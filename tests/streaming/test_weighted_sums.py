"""Where weights of a sum are known from the recipe, the merge of any tensors is that sum; else nothing is claimed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.streaming.definitions import combine
from harness.streaming.rules import RULES
from harness.streaming.weighted_sums import keeps_the_base, weights_of_sum
from tests.examples import examples
from tests.streaming.steps import SEEDS, WEIGHT, models, step_of

ADDING = ("task_arithmetic", "dare_linear", "della_linear", "breadcrumbs")


def check(step, seed):
    tensors = models(len(step.sources), (4, 6), seed, dtype=torch.float64)
    weights = weights_of_sum(step)
    expected = sum(weight * tensor for weight, tensor in zip(weights, tensors, strict=True))
    torch.testing.assert_close(combine(step, tensors), expected, rtol=1e-6, atol=1e-6)
    same = combine(step, [tensors[0]] * len(tensors))
    assert keeps_the_base(weights) == torch.allclose(same, tensors[0], rtol=1e-6, atol=1e-7)


@examples(40)
@given(SEEDS, st.lists(WEIGHT, min_size=1, max_size=4), st.booleans())
def test_of_linear(seed, weights, normalize):
    check(step_of("linear", len(weights), weight=weights, normalize=normalize and abs(sum(weights)) > 0.01), seed)


@examples(60)
@given(SEEDS, st.sampled_from(ADDING), st.lists(WEIGHT, min_size=2, max_size=4), st.integers(0, 1), st.booleans(),
       st.booleans(), st.sampled_from([1.0, 0.3]))  # fmt: skip
def test_of_task_vectors_that_stay_whole(seed, rule, weights, base, normalize, rescale, scale):
    others = sum(weight for place, weight in enumerate(weights) if place != base)
    check(step_of(rule, len(weights), base=base, weight=weights, normalize=normalize and abs(others) > 0.01,
                  rescale=rescale, lambda_=scale), seed)  # fmt: skip


@pytest.mark.parametrize("scale", [None, 1.0, 0.4])
def test_of_one_model(scale):
    check(step_of("passthrough", 1, scale=scale), 0)


def test_nothing_is_claimed_of_what_depends_on_the_values():
    for rule in RULES.values():
        given = {each.name: 0.5 for each in rule.parameters if each.name in ("weight", "density", "t")}
        claimed = weights_of_sum(step_of(rule.name, max(2, rule.fewest) if rule.most != 1 else 1, **given))
        assert (claimed is not None) == (rule.name in ("linear", "passthrough", "task_arithmetic")), rule.name
