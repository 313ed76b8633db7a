"""Which experts run for which class: as a loop over the examples counts them."""

from collections import Counter

import pytest
import torch

from harness.checks.pools import build_method, independent, split
from harness.evaluate.expert_use import EXPERTS, use_on_inputs
from harness.models import forward
from harness.moe.watching import watched


@pytest.fixture(scope="module")
def mixture():
    return build_method("moe", independent(1), experts=3, k=2, epochs=4)


def test_loads_are_what_a_loop_over_the_examples_counts(mixture):
    test = split("test")
    counts, rows = Counter(), Counter(test.labels.tolist())
    with torch.inference_mode():
        for inputs, label in zip(test.inputs, test.labels.tolist(), strict=True):
            with watched(mixture.module) as watch:
                forward.logits(mixture.module, inputs.unsqueeze(0))
            ((chosen,),) = (each.tolist() for each in watch.chosen.values())
            counts.update((label, expert) for expert in chosen)
    found = use_on_inputs(mixture, test)[EXPERTS]
    (layer,) = found["layers"].values()
    for label in rows:
        expected = [counts[label, expert] / rows[label] for expert in range(3)]
        assert layer["by_group"][str(label)] == pytest.approx(expected)
    assert sum(layer["load"]) == pytest.approx(2)
    assert (found["rows"], found["dropped"]) == (len(test), 0)


def test_what_has_no_experts_says_nothing():
    for name in ("linear", "uniform_soup"):
        assert use_on_inputs(build_method(name, independent(2)), split("test")) == {}
