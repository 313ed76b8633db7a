"""The curve between two models against models put together by hand, and the barrier on curves of known shape."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.checks.pools import CNN, CNN_BN, MLP, split, trained
from harness.evaluate.barrier import barrier, interpolate
from harness.merging.batchnorm import recalibrate
from harness.models.weights import module_with


def curve(*losses):
    return [{"a": k / (len(losses) - 1), "nll": loss} for k, loss in enumerate(losses)]


@pytest.mark.parametrize(
    ("losses", "height"),
    [
        ((1.0, 2.0, 1.0), 1.0),
        ((1.0, 1.5, 1.25, 3.0, 2.0), 3 - 1.75),
        ((2.0, 1.5, 1.0), 0.0),
        ((2.0, 0.1, 1.0), 0.0),  # a valley is no barrier
        ((0.0, 1.0, 4.0), 0.0),
    ],
)
def test_it_is_the_height_above_the_line_between_the_ends(losses, height):
    assert barrier(curve(*losses)) == pytest.approx(height)


@given(st.lists(st.floats(0, 10), min_size=2, max_size=12))
def test_it_is_never_below_zero_and_the_same_from_the_other_end(losses):
    assert barrier(curve(*losses)) >= -1e-12
    assert barrier(curve(*losses)) == pytest.approx(barrier(curve(*reversed(losses))), abs=1e-9)


@pytest.mark.parametrize("architecture", [CNN, CNN_BN, MLP], ids=lambda a: a.name)
def test_every_point_is_the_model_in_between(architecture):
    first, second = trained(architecture, 0), trained(architecture, 1)
    found = interpolate(architecture, first, second, split("train").inputs, split("heldout"))
    assert [point["a"] for point in found] == [k / 10 for k in range(11)]
    labels = split("heldout").labels
    for point in found:
        mixed = {
            name: (1 - point["a"]) * tensor + point["a"] * second[name] if tensor.is_floating_point() else tensor
            for name, tensor in first.items()
        }
        module = module_with(architecture, mixed)
        recalibrate(module, [split("train").inputs])
        with torch.no_grad():
            logits = module(split("heldout").inputs).double()
        assert point["nll"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-4)
        assert point["accuracy"] == pytest.approx(float((logits.argmax(1) == labels).double().mean()), abs=0.02)


def test_the_ends_of_a_model_without_statistics_are_its_own():
    first, second = trained(MLP, 0), trained(MLP, 1)
    found = interpolate(MLP, first, second, split("train").inputs, split("heldout"))
    for point, weights in ((found[0], first), (found[-1], second)):
        with torch.no_grad():
            logits = module_with(MLP, weights)(split("heldout").inputs)
        expected = torch.nn.functional.cross_entropy(logits.double(), split("heldout").labels)
        assert point["nll"] == pytest.approx(float(expected), rel=1e-6)
