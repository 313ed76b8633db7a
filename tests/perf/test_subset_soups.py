"""The correlation study's averages against a loop that copies a module and runs the whole split through it."""

import copy
import itertools

import torch

from harness.evaluate.heldout import predict_module
from harness.merging.subsets import FlatModels
from harness.models.architectures import build
from harness.types import Architecture, Split

MNIST = Architecture("small_cnn", (("classes", 10), ("side", 28)))


def test_subset_soups(in_turn):
    torch.manual_seed(0)
    modules = [build(MNIST).eval() for _ in range(8)]
    states = [module.state_dict() for module in modules]
    split = Split("test", torch.randn(2500, 1, 28, 28), torch.zeros(2500, dtype=torch.long), [""] * 2500, "")
    subsets = list(itertools.combinations(range(8), 4))[:16]

    def ours():
        models = FlatModels(copy.deepcopy(modules[0]), states)
        return [predict_module(module, split) for module in models.averages(subsets)]

    plain = build(MNIST).to(memory_format=torch.contiguous_format).eval()
    for place in (1, 3):  # the layers that a plain network has
        plain.trunk[place] = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.MaxPool2d(2))

    def loop():
        found = []
        for subset in subsets:
            module = copy.deepcopy(plain)
            module.load_state_dict({n: torch.stack([states[k][n] for k in subset]).mean(dim=0) for n in states[0]})
            with torch.no_grad():
                found.append(torch.log_softmax(module(split.inputs), dim=-1))
        return found

    torch.testing.assert_close(torch.stack(ours()), torch.stack(loop()), atol=1e-4, rtol=1e-4)
    in_turn("16 soups of 4 of 8 small CNNs on 2,500 images, against a plain loop", ours, loop, target=">= 3")
