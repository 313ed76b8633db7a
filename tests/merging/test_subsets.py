"""The quick averages of subsets equal the plain ones, layouts and all."""

import pytest
import torch

from harness.evaluate.predictions import predict
from harness.merging.arithmetic import average
from harness.merging.subsets import FlatModels
from harness.models.architectures import build
from harness.models.weights import module_with
from harness.types import Architecture, Split

ARCHITECTURES = [
    Architecture("small_cnn", (("classes", 3), ("hidden", 8), ("side", 8), ("width", 2))),
    Architecture("small_cnn_bn", (("classes", 3), ("hidden", 8), ("side", 8), ("width", 2))),
    Architecture("mlp", (("classes", 3), ("hidden", 8), ("side", 8))),
]


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: a.name)
def test_every_subset_average_is_the_streamed_average(architecture):
    torch.manual_seed(0)
    states = [build(architecture).state_dict() for _ in range(4)]
    split = Split("test", torch.randn(7, 1, 8, 8), torch.zeros(7, dtype=torch.long), [""] * 7, "")
    subsets = [(0,), (1, 2), (0, 1, 2, 3), (3, 0)]
    flat = FlatModels(build(architecture), states)
    for subset, module in zip(subsets, flat.averages(subsets), strict=True):
        plain = average([states[k] for k in subset])
        state = module.state_dict()
        for name, tensor in plain.items():
            torch.testing.assert_close(state[name], tensor, rtol=1e-6, atol=1e-7)
            assert state[name].stride() == build(architecture).state_dict()[name].stride()
        expected = predict(module_with(architecture, plain), split)
        torch.testing.assert_close(predict(module, split), expected, rtol=1e-5, atol=1e-6)


def test_a_single_member_is_itself_bit_for_bit():
    architecture = ARCHITECTURES[0]
    states = [build(architecture).state_dict() for _ in range(3)]
    module = next(FlatModels(build(architecture), states).averages([(1,)]))
    assert all(torch.equal(module.state_dict()[name], states[1][name]) for name in states[1])
