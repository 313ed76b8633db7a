"""EMA against torch's own, one step after the other."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from harness.merging.arithmetic import average
from harness.merging.ema import ema_coefficients, exponential_average
from tests.examples import examples


def run(count):
    torch.manual_seed(count)
    return [nn.Linear(3, 2) for _ in range(count)]


def torchs(modules, **options):
    averaged = AveragedModel(modules[0], **options)
    for module in modules:
        averaged.update_parameters(module)
    return averaged.module.state_dict()


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 1.0])
def test_it_is_torchs(count, decay):
    modules = run(count)
    found = exponential_average([m.state_dict() for m in modules], decay)
    torch.testing.assert_close(found, dict(torchs(modules, multi_avg_fn=get_ema_multi_avg_fn(decay))))


def test_torchs_running_mean_is_the_average_of_all_checkpoints():
    """SWA: the first checkpoint counts as often as any other."""
    modules = run(5)
    torch.testing.assert_close(average([m.state_dict() for m in modules]), dict(torchs(modules)))


def test_decay_0_is_the_last_checkpoint_and_decay_1_the_first_bit_for_bit():
    states = [m.state_dict() for m in run(4)]
    for decay, expected in ((0.0, states[-1]), (1.0, states[0])):
        found = exponential_average(states, decay)
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_time_order_matters():
    states = [m.state_dict() for m in run(3)]
    found, backwards = (exponential_average(order, 0.5)["weight"] for order in (states, states[::-1]))
    assert (found - backwards).abs().max() > 1e-3


@examples(50)
@given(st.integers(1, 30), st.floats(0, 1))
def test_what_the_checkpoints_count_sums_to_one(count, decay):
    found = ema_coefficients(count, decay)
    assert len(found) == count
    assert min(found) >= 0
    assert sum(found) == pytest.approx(1)
