"""Weights on disk: the same bits back, read one tensor at a time, only when touched."""

from collections import Counter

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from harness.checks.pools import CNN, CNN_BN, MLP, member, split, trained
from harness.models import weights as stored
from harness.models.architectures import build
from harness.models.weights import LazyWeights, load_into, load_module, module_with, save_weights, without_ties

ODD = {
    "half": torch.tensor([1.0, -0.0, 3.0]).bfloat16(),
    "wide": torch.tensor([[0.1]], dtype=torch.float64),
    "counter": torch.tensor(2**40),
    "mask": torch.tensor([True, False]),
    "empty": torch.zeros(0, 3),
    "transposed": torch.arange(6.0).view(2, 3).T,
    "part": torch.arange(10.0)[::3],
    "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "infinite": torch.tensor([torch.inf, -torch.inf]),
}


@pytest.fixture
def path(tmp_path):
    save_weights(ODD, tmp_path / "odd.safetensors")
    return tmp_path / "odd.safetensors"


def test_what_was_saved_is_read_again(path):
    lazy = LazyWeights(path)
    assert set(lazy) == set(ODD)
    assert len(lazy) == len(ODD)
    for name, tensor in ODD.items():
        assert lazy[name].dtype == tensor.dtype
        assert torch.equal(lazy[name], tensor)
    assert load_file(path).keys() == ODD.keys()  # a plain safetensors file


def test_layouts_are_made_plain_and_the_originals_keep_theirs(path):
    assert all(LazyWeights(path)[name].is_contiguous() for name in ODD)
    assert not ODD["transposed"].is_contiguous()


def test_weights_with_gradients_and_tied_ones_can_be_saved(tmp_path):
    shared = torch.nn.Parameter(torch.ones(2))
    save_weights({"a": shared, "b": shared}, tmp_path / "tied")
    lazy = LazyWeights(tmp_path / "tied")
    assert {name: lazy[name].tolist() for name in lazy} == {"a": [1.0, 1.0], "b": [1.0, 1.0]}
    assert not lazy["a"].requires_grad


def test_a_tensor_is_read_when_it_is_asked_for_and_not_kept(path, monkeypatch):
    read = Counter()
    plain = stored.safe_open

    class Counting:
        def __init__(self, *arguments, **options):
            self.file = plain(*arguments, **options)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def keys(self):
            return self.file.keys()

        def get_tensor(self, name):
            read[name] += 1
            return self.file.get_tensor(name)

    monkeypatch.setattr(stored, "safe_open", Counting)
    lazy = LazyWeights(path)
    assert list(lazy)
    assert not read
    first = lazy["part"]
    first.fill_(5.0)
    assert torch.equal(lazy["part"], ODD["part"])
    assert read == {"part": 2}


def test_a_name_that_is_not_there_is_a_key_error(path):
    lazy = LazyWeights(path)
    with pytest.raises(KeyError, match="nothing"):
        lazy["nothing"]
    assert "nothing" not in lazy
    assert "part" in lazy


@pytest.mark.parametrize("architecture", [CNN, CNN_BN, MLP], ids=lambda a: a.name)
def test_a_module_holds_the_weights_it_was_given_in_eval_mode(architecture, tmp_path):
    weights = trained(architecture, 0)
    save_weights(weights, tmp_path / "model")
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    module = module_with(architecture, LazyWeights(tmp_path / "model"))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(part.training for part in module.modules())
    assert all(torch.equal(module.state_dict()[name], weights[name]) for name in weights)
    inputs = split("test").inputs
    expected = build(architecture).eval()
    expected.load_state_dict(weights)
    assert torch.equal(module(inputs), expected(inputs))


def test_a_member_is_loaded_apart_from_its_weights():
    one = member("m", trained(CNN, 0))
    module = load_module(one)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert all(torch.equal(one.weights[name], trained(CNN, 0)[name]) for name in one.weights)


def test_weights_that_do_not_fit_are_refused_by_name():
    weights = dict(trained(CNN, 0))
    with pytest.raises(ValueError, match=r"'hidden\.extra' is not one of its tensors"):
        module_with(CNN, {**weights, "hidden.extra": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"'hidden\.bias' is \[1\], not \[6\]"):
        module_with(CNN, {**weights, "hidden.bias": torch.zeros(1)})  # which would broadcast
    del weights["hidden.bias"]
    with pytest.raises(ValueError, match=r"'hidden\.bias' is missing"):
        module_with(CNN, weights)


class Tied(nn.Module):
    """An embedding that is the output layer too, beside a square layer of the same shape that is not."""

    def __init__(self):
        super().__init__()
        self.embedding, self.body, self.head = nn.Embedding(3, 3), nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
        self.head.weight = self.embedding.weight


def test_of_tied_tensors_a_file_holds_one_and_both_names_are_filled_from_it(tmp_path):
    one, other = Tied(), Tied()
    assert list(without_ties(one)) == ["embedding.weight", "body.weight", "body.bias"]
    save_weights(without_ties(one), tmp_path / "tied")
    load_into(other, LazyWeights(tmp_path / "tied"))
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in one.state_dict().items())
    assert other.head.weight is other.embedding.weight
    load_into(other, dict(Tied().state_dict()))  # both names given: as files of other programs have it
    with pytest.raises(ValueError, match=r"'embedding\.weight' is missing"):
        load_into(other, {name: t for name, t in one.state_dict().items() if name != "embedding.weight"})
