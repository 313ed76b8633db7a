"""Models that are read layer by layer as they run; that they say the same, test_pretrained shows of every family."""

import math

import pytest
import torch
from safetensors.torch import load_file

from harness.errors import BadInput
from harness.models.configuration import architecture_of
from harness.models.room import fits, set_room
from harness.models.streamed import bytes_of, module_to_run, streamed_module
from harness.models.weights import check_finite, module_with, save_network, without_ties
from tests.models.families import build

TOKENS = torch.arange(3, 15)[None]


@pytest.fixture(autouse=True)
def usual_room():
    yield
    set_room(None)


def made(kind="llama", dtype=torch.bfloat16, **settings):
    """An architecture, and weights in half precision."""
    module = build(kind).to(dtype)
    for name, value in settings.items():
        setattr(module.config, name, value)
    module.tie_weights()
    return architecture_of(module.config), dict(without_ties(module))


class Asked(dict):
    """Weights that remember what is asked of them."""

    def __init__(self, weights):
        super().__init__(weights)
        self.names = []

    def __getitem__(self, name):
        self.names.append(name)
        return super().__getitem__(name)


def test_a_layers_weights_are_read_when_it_runs_and_are_nowhere_afterwards():
    architecture, weights = made()
    asked = Asked(weights)
    module = streamed_module(architecture, asked)
    of_layers = [name for name in weights if ".layers." in name]
    assert not set(asked.names) & set(of_layers)
    seen = []
    layers = module.model.layers
    for number, layer in enumerate(layers):
        def note(_, *__, number=number):
            seen.append([number, *(each.self_attn.q_proj.weight.is_meta for each in layers)])

        layer.register_forward_hook(note, prepend=True)
    asked.names.clear()
    with torch.no_grad():
        module(input_ids=TOKENS)
    assert asked.names == of_layers
    assert seen == [[0, False, True], [1, True, False]]
    assert all(module.get_parameter(name).is_meta for name in of_layers)


def test_what_layers_alike_are_read_into_is_one_place():
    architecture, weights = made()
    module = streamed_module(architecture, weights)
    places = []
    for layer in module.model.layers:
        layer.register_forward_hook(lambda each, *_: places.append(each.mlp.up_proj.weight.data_ptr()), prepend=True)
    with torch.no_grad():
        module(input_ids=TOKENS)
    assert len(places) == 2
    assert places[0] == places[1]


def test_after_an_error_no_weights_are_held_and_the_module_runs_again():
    architecture, weights = made()
    module = streamed_module(architecture, weights)
    with torch.inference_mode():
        before = module(input_ids=TOKENS).logits
    fails = module.model.layers[1].mlp.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), torch.no_grad():
        module(input_ids=TOKENS)
    fails.remove()
    assert all(each.is_meta for each in module.model.layers.parameters())
    with torch.no_grad():
        assert torch.equal(module(input_ids=TOKENS).logits, before)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bloom", "mixtral"])
@pytest.mark.parametrize("tied", [False, True])
def test_its_file_is_the_one_that_the_whole_module_leaves(kind, tied, tmp_path):
    architecture, weights = made(kind, **({"tie_word_embeddings": True} if tied else {}))
    files = []
    for name, make in (("whole", module_with), ("streamed", streamed_module)):
        (tmp_path / name).mkdir()
        save_network(architecture, make(architecture, weights), tmp_path / name)
        files.append((tmp_path / name / "model.safetensors").read_bytes())
    assert files[0] == files[1]
    stored = load_file(tmp_path / "streamed/model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}


def test_tensors_of_other_shapes_are_refused_when_they_are_read():
    architecture, weights = made()
    name = "model.layers.1.mlp.up_proj.weight"
    module = streamed_module(architecture, {**weights, name: weights[name][:1]})
    with pytest.raises(ValueError, match=rf"'{name}' is \[1, 32\], not \[48, 32\]"), torch.no_grad():
        module(input_ids=TOKENS)
    del weights[name]
    with pytest.raises(ValueError, match=f"'{name}' is missing"):
        streamed_module(architecture, weights)


def test_weights_that_are_no_numbers_are_found_where_they_are():
    architecture, weights = made()
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = math.nan
    with pytest.raises(BadInput, match=r"m0 holds NaN weights in 'model\.layers\.0\.mlp\.up_proj\.weight'"):
        check_finite("m0", streamed_module(architecture, weights))


def test_what_fits_is_held_whole_and_what_does_not_is_streamed():
    architecture, weights = made()
    whole = sum(tensor.numel() * 4 for tensor in weights.values())
    assert bytes_of(architecture) == pytest.approx(whole, rel=0.01)
    for room, is_streamed in ((math.inf, False), (0, True), (None, False)):
        set_room(room)
        assert fits(whole) != is_streamed
        assert any(each.is_meta for each in module_to_run(architecture, weights).parameters()) == is_streamed


def test_half_of_what_is_free_is_what_a_model_may_take(monkeypatch):
    monkeypatch.setattr("harness.models.room.memory_available", lambda: 1000)
    assert (fits(500), fits(501)) == (True, False)
    monkeypatch.setattr("harness.models.room.memory_held", lambda: 300)
    set_room(1000)
    assert (fits(700), fits(701)) == (True, False)
