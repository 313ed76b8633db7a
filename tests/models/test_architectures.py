"""The zoo: sizes by hand, what is refused, and the half-size twin."""

import pytest
import torch
from torch import nn

from harness.errors import BadInput
from harness.models.architectures import build, half_size, with_options
from harness.moe.layer import MixtureOfExperts
from harness.types import Architecture

IMAGES = ("mlp", "small_cnn", "small_cnn_bn")


def architecture(name, **options):
    return Architecture(name, tuple(sorted({"side": 8, "classes": 5, **options}.items())))


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def mlp_by_hand(side, classes, hidden):
    return side * side * hidden + hidden + hidden * hidden + hidden + hidden * classes + classes


def cnn_by_hand(side, classes, width, hidden, norm):
    per_channel = 2 if norm else 1  # scale and shift, or a bias
    stages = 9 * width + per_channel * width + 9 * width * 2 * width + per_channel * 2 * width
    features = 2 * width * (side // 4) ** 2
    return stages + features * hidden + hidden + hidden * classes + classes


@pytest.mark.parametrize(("side", "classes"), [(4, 3), (8, 10), (28, 10)])
@pytest.mark.parametrize("hidden", [1, 6, 128])
def test_sizes_are_those_worked_out_by_hand(side, classes, hidden):
    shape = {"side": side, "classes": classes, "hidden": hidden}
    assert parameters(build(architecture("mlp", **shape))) == mlp_by_hand(**shape)
    for name, norm in (("small_cnn", False), ("small_cnn_bn", True)):
        module = build(architecture(name, width=3, **shape))
        assert parameters(module) == cnn_by_hand(width=3, norm=norm, **shape)
        assert sum(isinstance(m, nn.BatchNorm2d) for m in module.modules()) == (2 if norm else 0)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("side", [4, 7, 8, 28])
def test_images_become_logits(name, side):
    module = build(architecture(name, side=side)).eval()
    assert module(torch.randn(3, 1, side, side)).shape == (3, 5)


@pytest.mark.parametrize("name", IMAGES)
def test_dropout_is_an_option(name):
    for p in (0.0, 0.7):
        found = {m.p for m in build(architecture(name, dropout=p)).modules() if isinstance(m, nn.Dropout)}
        assert found == {p}


def test_experts_take_the_place_of_the_hidden_layer():
    options = {"experts": 3, "active": 1, "routing": "dense", "balance": 0.5}
    module = build(architecture("small_cnn", width=2, hidden=6, **options))
    layer = module.hidden
    assert isinstance(layer, MixtureOfExperts)
    assert (layer.gate.experts, layer.gate.k, layer.dispatch, layer.gate.balance_weight) == (3, 1, "dense", 0.5)
    assert module.eval()(torch.randn(2, 1, 8, 8)).shape == (2, 5)


def test_fresh_weights_come_from_the_global_generator():
    def drawn(seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build(architecture("small_cnn")).state_dict()

    one, again, other = drawn(1), drawn(1), drawn(2)
    assert all(torch.equal(one[n], again[n]) for n in one)
    assert not any(torch.equal(one[n], other[n]) for n in one)


def test_an_unknown_name_is_answered_with_the_nearest_known_one():
    with pytest.raises(BadInput, match=r"unknown architecture 'smal_cnn'; did you mean 'small_cnn'\? \(known: .*mlp, "):
        build(Architecture("smal_cnn"))


@pytest.mark.parametrize("name", IMAGES)
def test_an_unknown_or_a_missing_option_is_named(name):
    with pytest.raises(BadInput, match=f"architecture '{name}': .*'widht'"):
        build(architecture(name, widht=3))
    with pytest.raises(BadInput, match=f"architecture '{name}': .*'classes'"):
        build(Architecture(name, (("side", 8),)))


def test_options_are_changed_and_added_in_one_order():
    small = Architecture("mlp", (("classes", 3), ("side", 8)))
    found = with_options(small, hidden=7, classes=4)
    assert found == Architecture("mlp", (("classes", 4), ("hidden", 7), ("side", 8)))
    assert small.options == (("classes", 3), ("side", 8))
    assert with_options(small) == small
    assert str(found) == "mlp,classes=4,hidden=7,side=8"


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("options", [{}, {"hidden": 10}, {"hidden": 3, "width": 3}], ids=str)
def test_half_the_size_is_really_smaller_and_still_the_same_family(name, options):
    if name == "mlp":
        options = {key: value for key, value in options.items() if key != "width"}
    whole = architecture(name, dropout=0.1, **options)
    half = half_size(whole)
    assert half.name == name
    assert dict(half.options).keys() - dict(whole.options).keys() <= {"width", "hidden"}
    assert dict(half.options)["dropout"] == 0.1
    large, small = build(whole), build(half)
    assert parameters(small) <= 0.55 * parameters(large)
    assert list(small.state_dict()) == list(large.state_dict())
    for one, other in zip(small.parameters(), large.parameters(), strict=True):
        assert all(a <= b for a, b in zip(one.shape, other.shape, strict=True))
    assert small.eval()(torch.randn(2, 1, 8, 8)).shape == (2, 5)


def test_half_of_a_mixture_of_experts_is_smaller_too():
    whole = architecture("small_cnn", experts=4, active=2)
    assert parameters(build(half_size(whole))) <= 0.55 * parameters(build(whole))


def test_half_of_a_language_model_is_smaller_too():
    whole = Architecture("tiny_llama", (("context", 16), ("heads", 2), ("hidden", 32), ("layers", 1), ("vocab", 40)))
    large, small = build(whole), build(half_size(whole))
    assert parameters(small) <= 0.55 * parameters(large)
    assert list(small.state_dict()) == list(large.state_dict())
    assert small.config.vocab_size == 40


def test_nothing_is_halved_to_nothing():
    half = half_size(architecture("small_cnn", width=1, hidden=1))
    assert build(half).eval()(torch.randn(1, 1, 8, 8)).shape == (1, 5)


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (2, 3), (28, 28)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_quick_pooling_is_pooling(size, layout):
    from harness.models.image_networks import RectifiedPool

    images = torch.randn(3, 2, *size, generator=torch.Generator().manual_seed(0)).to(memory_format=layout)
    pool = RectifiedPool().eval()
    with torch.inference_mode():
        quick = pool(images)
    assert torch.equal(quick, torch.nn.functional.max_pool2d(torch.relu(images), 2))
    assert torch.equal(pool.train()(images), quick)
