"""Networks for tables: sizes by hand, what is halved, which units are free, and experts in place of a layer."""

import pytest
import torch
from torch import nn

from harness.merging.permutations import interchangeable, reordered
from harness.models.architectures import build, half_size, takes
from harness.models.tabular_networks import NETWORKS
from harness.moe.layer import MixtureOfExperts
from harness.types import Architecture

SHAPE = {"features": 16, "classes": 26}
LAYERS = {
    "table_mlp": [(16, 192), (192, 192), (192, 26)],
    "table_mlp_wide": [(16, 256), (256, 256), (256, 26)],
    "table_mlp_deep": [(16, 192), (192, 192), (192, 192), (192, 26)],
    "residual_mlp": [(16, 128), *[(128, 128)] * 4, (128, 26)],
}
FREE = {"table_mlp": [192, 192], "table_mlp_wide": [256] * 2, "table_mlp_deep": [192] * 3, "residual_mlp": [128] * 3}


def architecture(name, **options):
    return Architecture(name, tuple(sorted({**SHAPE, **options}.items())))


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_sizes_are_those_worked_out_by_hand(name):
    module = build(architecture(name))
    assert [(m.in_features, m.out_features) for m in module.modules() if isinstance(m, nn.Linear)] == LAYERS[name]
    assert parameters(module) == sum(inputs * outputs + outputs for inputs, outputs in LAYERS[name])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_width_depth_and_dropout_are_options(name, depth):
    module = build(architecture(name, hidden=6, depth=depth, dropout=0.7)).eval()
    assert module(torch.randn(3, 16)).shape == (3, 26)
    assert {m.p for m in module.modules() if isinstance(m, nn.Dropout)} == {0.7}
    hidden = [m for m in module.modules() if isinstance(m, nn.Linear) and m.in_features == m.out_features == 6]
    assert len(hidden) == (2 * depth if name == "residual_mlp" else depth - 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_half_is_half_as_wide_and_as_deep(name):
    whole, half = build(architecture(name)), build(half_size(architecture(name)))
    assert parameters(half) <= 0.55 * parameters(whole)
    assert list(half.state_dict()) == list(whole.state_dict())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_hidden_unit_is_free_to_change_places_and_then_nothing_is_computed_otherwise(name):
    torch.manual_seed(0)
    module, rows = build(architecture(name)).eval(), torch.randn(5, 16)
    layers = interchangeable(module)
    assert [units.size for units in layers] == FREE[name]
    expected, weights = module(rows), module.state_dict()
    for units in layers:
        weights = reordered(weights, units, torch.randperm(units.size))
    assert not torch.equal(weights[layers[0].axes[0].tensor], module.state_dict()[layers[0].axes[0].tensor])
    module.load_state_dict(weights)
    torch.testing.assert_close(module(rows), expected, rtol=1e-4, atol=1e-5)


def test_experts_take_the_place_of_the_last_hidden_layer():
    of = architecture("table_mlp", depth=3, experts=3, active=1, routing="dense", balance=0.5)
    layer = build(of).hidden
    assert isinstance(layer, MixtureOfExperts)
    assert (layer.gate.experts, layer.gate.k, layer.dispatch, layer.gate.balance_weight) == (3, 1, "dense", 0.5)
    assert build(of).eval()(torch.randn(2, 16)).shape == (2, 26)
    assert [name for name in NETWORKS if takes(architecture(name), "experts")] == ["table_mlp"]
