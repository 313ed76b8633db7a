"""How far a latency ratio can be trusted here: equal systems told apart, and a planted slowdown overlooked.

The machine may be busy meanwhile: that is what the figure has to stand.
"""

from functools import partial

import pytest
import torch

from harness.cost import latency
from harness.types import Combination

REPETITIONS = 20


class Layers(Combination):
    """So many equal layers one after another: 24 take 20 % longer than 20."""

    def __init__(self, count, device):
        self.layers = torch.nn.ModuleList(torch.nn.Linear(128, 128) for _ in range(count)).eval().to(device)

    def log_probs(self, batch):
        for layer in self.layers:
            batch = torch.relu(layer(batch))
        return batch

    def parts(self):
        return ()

    def save(self, folder):
        raise NotImplementedError


@pytest.mark.parametrize("device", [torch.device("cpu")] + [torch.device("cuda")] * torch.cuda.is_available(), ids=str)
@pytest.mark.parametrize(("rows", "seconds"), [(1, 0.15), (250, 0.25)], ids=["one example", "a full batch"])
def test_equal_systems_and_a_planted_slowdown(benchmark, rows, seconds, device):
    batch = torch.randn(rows, 128, device=device)

    def study():
        def measured(count):
            loads = partial(Layers, count, device), partial(Layers, 20, device)
            return [latency.measure(*loads, batch, seconds=seconds, device=device) for _ in range(REPETITIONS)]

        covered = sum(found.ratio_low <= 1 <= found.ratio_high for found in measured(20))
        return covered, sum(found.ratio_low > 1 for found in measured(24))

    covered, detected = benchmark.pedantic(study, rounds=1)
    benchmark.extra_info.update(what="latency noise", repetitions=REPETITIONS, covered=covered, detected=detected)
    assert covered >= 18
    assert detected >= 18
