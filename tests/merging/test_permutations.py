"""Reordered networks compute what they did; which units are free is what one finds by hand for each architecture."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

from harness.checks.pools import CLASSES, CNN, CNN_BN, MLP, split
from harness.merging.permutations import Axis, Units, interchangeable, reordered
from harness.models.architectures import build, trainable
from harness.models.weights import load_into, without_ties
from harness.types import Architecture, NotApplicable

LLAMA = Architecture("tiny_llama", (("context", 16), ("heads", 4), ("hidden", 16), ("layers", 2), ("vocab", 24)))
TABLES = [
    Architecture(name, (("classes", CLASSES), ("depth", depth), ("features", 6), ("hidden", 5)))
    for name, depth in (("table_mlp", 2), ("table_mlp_wide", 2), ("table_mlp_deep", 3), ("residual_mlp", 2))
]
ZOO = {architecture.name: architecture for architecture in (CNN, CNN_BN, MLP, LLAMA, *TABLES)}
HUB = {
    "llama": (LlamaForCausalLM, LlamaConfig),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config),  # with biases on queries, keys and values
    "mistral": (MistralForCausalLM, MistralConfig),
}


class Residual(nn.Module):
    """A stem that two blocks write to; the second writes with a layer that also reads from it."""

    def __init__(self, width=5):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.inner = nn.Conv2d(width, 4, 3, padding=1)
        self.outer = nn.Conv2d(4, width, 3, padding=1)
        self.both = nn.Conv2d(width, width, 1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, CLASSES))

    def forward(self, images):
        stream = torch.relu(self.norm(self.stem(images)))
        stream = stream + self.outer(torch.relu(self.inner(stream)))
        return self.head(stream + torch.relu(self.both(stream)))


def hub_model(kind, key_value_heads=2):
    """Six heads that share two (or so many) key-value heads."""
    model, config = HUB[kind]
    torch.manual_seed(0)
    return model(
        config(
            vocab_size=24, hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_attention_heads=6,
            num_key_value_heads=key_value_heads, initializer_range=0.1, tie_word_embeddings=kind == "llama",
            pad_token_id=None,
        )
    )  # fmt: skip


def zoo_model(name):
    torch.manual_seed(0)
    return build(ZOO[name])


MODELS = {
    **{name: (lambda name=name: zoo_model(name)) for name in ZOO},
    **{f"{kind} of the hub": (lambda kind=kind: hub_model(kind)) for kind in HUB},
    "one key-value head": lambda: hub_model("llama", 1),
    "a key-value head each": lambda: hub_model("qwen2", 6),
    "residual": Residual,
}


def distinct(module):
    """The module with no two weights, biases or statistics alike, so that a unit left behind shows."""
    generator = torch.Generator().manual_seed(3)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator).clamp(-2, 2))
    return module.eval()


def random_order(units, generator):
    """Any order of groups, and within each any order of units."""
    groups = torch.arange(units.size).view(-1, units.group)
    moved = groups[torch.randperm(len(groups), generator=generator)]
    return torch.cat([group[torch.randperm(units.group, generator=generator)] for group in moved])


def shuffled(weights, layers, seed):
    """The weights with every layer's units in random order, and those orders."""
    generator = torch.Generator().manual_seed(seed)
    orders = {units.name: random_order(units, generator) for units in layers}
    for units in layers:
        weights = reordered(weights, units, orders[units.name])
    return weights, orders


def outputs(module):
    """What the network says about images, or tokens, in float64: what is left is the order of sums."""
    module = module.double()
    with torch.no_grad():
        if hasattr(module, "config"):  # whose norms work in float32 all the same
            return module(torch.arange(24).view(2, 12), use_cache=False).logits
        first = next(layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d))
        if isinstance(first, nn.Linear) and first.in_features == 6:
            return module(torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
        return module(split("test").inputs.double())


def test_every_architecture_that_a_suite_can_name_is_here():
    assert set(ZOO) == set(trainable())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", range(3))
def test_a_reordered_network_computes_what_it_did(name, seed):
    module = distinct(MODELS[name]())
    weights = {key: tensor.clone() for key, tensor in without_ties(module).items()}
    moved, orders = shuffled(weights, interchangeable(module), seed)
    before = outputs(module).clone()
    load_into(module, moved)
    assert (outputs(module) - before).abs().max() <= 1e-6 * before.abs().max()
    assert any(not torch.equal(order, torch.arange(len(order))) for order in orders.values())
    assert all(torch.equal(moved[key].flatten().sort().values, tensor.flatten().sort().values)
               for key, tensor in weights.items())  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_every_axis_counts(name):
    """Units that are moved along all of their axes but one are another network: no axis is there in vain."""
    module = distinct(MODELS[name]())
    before = outputs(module).clone()
    weights = {key: tensor.clone() for key, tensor in without_ties(module).items()}
    for units in interchangeable(module):
        order = torch.arange(units.size).view(-1, units.group).roll((1, 1), dims=(0, 1)).flatten()
        for left in units.axes:
            if left.of_groups and units.size == units.group:
                continue  # a single group stays where it is
            less = Units(units.name, units.size, tuple(a for a in units.axes if a != left), units.group)
            load_into(module, reordered(weights, less, order))
            assert (outputs(module) - before).abs().max() > 1e-6, left


def sizes(module):
    return {units.name: (units.size, units.group) for units in interchangeable(module)}


def test_of_an_mlp_both_hidden_layers_are_free():
    assert sizes(zoo_model("mlp")) == {"layers.1": (6, 1), "layers.4": (6, 1)}
    first, _ = interchangeable(zoo_model("mlp"))
    assert first.axes == (Axis("layers.1.weight", 0), Axis("layers.1.bias", 0), Axis("layers.4.weight", 1))


@pytest.mark.parametrize(("name", "second"), [("small_cnn", "trunk.2"), ("small_cnn_bn", "trunk.3")])
def test_of_a_convolutional_network_the_channels_and_the_hidden_layer_are_free(name, second):
    assert sizes(zoo_model(name)) == {"trunk.0": (2, 1), second: (4, 1), "hidden": (6, 1)}


def test_statistics_move_with_their_channel_but_are_not_matched():
    first, *_ = interchangeable(zoo_model("small_cnn_bn"))
    assert {axis.tensor: axis.learned for axis in first.axes} == {
        "trunk.0.weight": True, "trunk.1.weight": True, "trunk.1.bias": True, "trunk.3.weight": True,
        "trunk.1.running_mean": False, "trunk.1.running_var": False,
    }  # fmt: skip


def test_of_a_llama_the_stream_the_heads_and_the_hidden_units_are_free():
    layers = [f"model.layers.{i}" for i in (0, 1)]
    heads, hidden = {f"{at}.self_attn": (4, 1) for at in layers}, {f"{at}.mlp": (64, 1) for at in layers}
    assert sizes(zoo_model("tiny_llama")) == {**heads, **hidden, "residual stream": (16, 1)}
    assert sizes(hub_model("llama"))["model.layers.0.self_attn"] == (6, 3)


@pytest.mark.parametrize("name", ["tiny_llama", *(f"{kind} of the hub" for kind in HUB)])
def test_every_weight_of_a_llama_holds_units(name):
    module = MODELS[name]()
    held = {axis.tensor for units in interchangeable(module) for axis in units.axes}
    assert held == set(without_ties(module))


def test_a_residual_sum_makes_all_that_write_to_it_one_ordering():
    stream, inner = interchangeable(Residual())
    assert (stream.size, inner.size) == (5, 4)
    assert {axis.tensor for axis in stream.axes if axis.dim == 0} >= {"stem.weight", "outer.weight", "both.weight"}
    assert {axis.tensor for axis in stream.axes if axis.dim == 1} == {"inner.weight", "both.weight", "head.2.weight"}


def test_a_layer_that_is_used_twice_has_one_ordering():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again, self.last = nn.Linear(16, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)

        def forward(self, rows):
            return self.last(torch.relu(self.again(torch.relu(self.again(self.first(rows))))))

    (units,) = interchangeable(Twice())
    assert {(axis.tensor, axis.dim) for axis in units.axes} >= {("again.weight", 0), ("again.weight", 1)}


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (build(Architecture("small_cnn", (*CNN.options, ("experts", 2)))), r"'hidden' \(MixtureOfExperts\)"),
        (nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=2)), r"'1' \(Conv2d\)"),
        (nn.Sequential(nn.Linear(4, 4), nn.Softmax(dim=1)), r"'1' \(Softmax\)"),
    ],
)
def test_a_layer_of_which_it_is_not_known_is_named(module, reason):
    with pytest.raises(NotApplicable, match=reason):
        interchangeable(module)


def test_a_language_model_of_another_kind_is_named():
    from transformers import GPT2Config, GPT2LMHeadModel

    module = GPT2LMHeadModel(GPT2Config(vocab_size=24, n_embd=8, n_layer=1, n_head=2))
    with pytest.raises(NotApplicable, match="units of a 'gpt2'"):
        interchangeable(module)


def test_reordering_leaves_its_input_alone_and_keeps_type_and_bits():
    weights = {"w": torch.arange(6, dtype=torch.bfloat16).view(3, 2), "other": torch.ones(1)}
    units = Units("w", 3, (Axis("w", 0),))
    found = reordered(weights, units, torch.tensor([2, 0, 1]))
    assert found["w"].tolist() == [[4, 5], [0, 1], [2, 3]]
    assert found["w"].dtype == torch.bfloat16
    assert found["other"] is weights["other"]
    assert weights["w"].tolist() == [[0, 1], [2, 3], [4, 5]]
