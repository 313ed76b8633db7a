"""What names of tensors say, against mergekit's definitions of architectures and transformers' own networks."""

import pytest
import torch
import transformers
from mergekit.architecture import arch_info_for_config
from mergekit.architecture.json_definitions import JSON_ARCHITECTURES
from transformers.initialization import no_init_weights

from harness.recipes.layers import (
    Layer,
    at_layer,
    comes_before,
    is_computed,
    is_head,
    layer_of,
    of_vocabulary,
    spelled,
    spelled_alike,
    stacks,
    twin,
)
from tests.recipes.small_folders import KINDS, config_of

ODD = "mixformer-sequential"
"""Of Phi-1's first code, which counts embeddings and head among the layers."""
ONE_STACK = [
    pytest.param(architecture, id=f"{architecture.expected_model_type}-{architecture.architectures[0]}")
    for architecture in JSON_ARCHITECTURES
    if len(architecture.modules) == 1 and architecture.expected_model_type != ODD
]
INCOMPLETE = {"bert-masked": "the head's own layers are left out", "t5": "only those with gates are meant"}
"""Definitions of mergekit that lack tensors of transformers' networks."""
DEPTH = 12


class Config:
    """The number of layers, under whatever name an architecture asks for it."""

    def __getattr__(self, name):
        return DEPTH


def names_of(architecture):
    (module,) = architecture.modules.values()
    definition = module.architecture
    before, after = definition.pre_weights(Config()), definition.post_weights(Config())
    layers = [definition.layer_weights(index, Config()) for index in range(DEPTH)]
    return before, layers, after


@pytest.mark.parametrize("architecture", ONE_STACK)
def test_layers_are_those_of_mergekits_definitions(architecture):
    before, layers, after = names_of(architecture)
    for index, weights in enumerate(layers):
        for weight, other in zip(weights, layers[7], strict=True):
            assert layer_of(weight.name).index == index
            assert at_layer(weight.name, 7) == other.name
    assert not any(layer_of(weight.name) for weight in before + after)
    assert [comes_before(weight.name) for weight in before] == [True] * len(before)
    assert [comes_before(weight.name) for weight in after] == [False] * len(after)
    (depth,) = stacks(weight.name for weights in layers for weight in weights).values()
    assert depth == DEPTH


@pytest.mark.parametrize("architecture", ONE_STACK)
def test_tensors_of_the_vocabulary_and_their_twins_are_those_of_mergekits_definitions(architecture):
    before, layers, after = names_of(architecture)
    everything = [weight for weights in (before, *layers, after) for weight in weights]
    names = [weight.name for weight in everything]
    tied = [weight for weight in everything if set(weight.tied_names or ()) & set(names)]
    for weight in tied:
        assert of_vocabulary(weight.name)
        assert is_head(weight.name)
        assert twin(weight.name, [name for name in names if name != weight.name]) in weight.tied_names
    rows = {weight.name for weight in everything if weight.vocabulary_axis == 0 and weight.name.endswith(".weight")}
    found = {name for name in names if of_vocabulary(name)}
    assert found <= rows
    assert rows - found <= {"transformer.output_layer.weight", "lm_head.linear.weight"}  # which are never tied


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "gpt2-base"])  # which mergekit has not
def test_the_names_of_transformers_networks_are_those_of_mergekits_definitions(kind):
    config = config_of(kind)
    definition = arch_info_for_config(config)
    with torch.device("meta"), no_init_weights():
        names = list(getattr(transformers, KINDS[kind][1])(config).state_dict())
    known, depths = set(), {}
    for module in definition.modules.values():
        inner = module.architecture
        loose = [*inner.pre_weights(config), *inner.post_weights(config)]
        layers = [weight for index in range(inner.num_layers(config)) for weight in inner.layer_weights(index, config)]
        if layers:
            depths[layer_of(layers[0].name).stack] = inner.num_layers(config)
        assert not any(layer_of(weight.name) for weight in loose)
        known |= {weight.name for weight in loose + layers}
    assert stacks(names) == depths
    if kind not in INCOMPLETE:
        assert set(names) - known <= {"lm_head.weight"}  # which Gemma always ties


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("h.3.attn.c_attn.weight", Layer("h", 3)),
        ("transformer.h.10.ln_1.bias", Layer("transformer.h", 10)),
        ("decoder.block.2.layer.1.EncDecAttention.q.weight", Layer("decoder.block", 2)),
        ("model.layers.4.block_sparse_moe.experts.7.w1.weight", Layer("model.layers", 4)),
        ("model.layers.4", None),
        ("classifier.0.weight", None),
        ("lm_head.weight", None),
        ("sublayers.0.weight", None),
    ],
)
def test_the_outer_stack_is_the_layer(name, layer):
    assert layer_of(name) == layer
    assert at_layer(name, 5) == (
        name if layer is None else name.replace(f"{layer.stack}.{layer.index}.", f"{layer.stack}.5.", 1)
    )


def test_both_stacks_of_t5_are_counted_by_themselves():
    names = ["encoder.block.0.layer.0.SelfAttention.q.weight", "encoder.block.2.layer.1.x.weight", "shared.weight"]
    assert stacks([*names, "decoder.block.1.layer.2.y.weight"]) == {"encoder.block": 3, "decoder.block": 2}


def test_a_twin_is_the_embeddings_else_the_output_matrix():
    t5 = [
        "decoder.embed_tokens.weight",
        "encoder.embed_tokens.weight",
        "shared.weight",
        "encoder.final_layer_norm.weight",
    ]
    assert twin("lm_head.weight", t5) == "shared.weight"
    assert twin("transformer.wte.weight", ["lm_head.weight", "transformer.wpe.weight"]) == "lm_head.weight"
    assert twin("transformer.ln_f.weight", ["transformer.wte.weight"]) is None
    assert twin("lm_head.weight", ["model.norm.weight"]) is None


def test_masks_and_frequencies_are_computed_and_biases_are_not():
    names = {"h.0.attn.bias", "h.0.attn.masked_bias", "h.0.attn.c_attn.bias", "h.0.attn.c_attn.weight"}
    assert {name for name in names if is_computed(name, names)} == {"h.0.attn.bias", "h.0.attn.masked_bias"}
    assert not is_computed("h.0.attn.bias", {*names, "h.0.attn.weight"})
    assert is_computed("model.layers.0.self_attn.rotary_emb.inv_freq", ())
    assert is_computed("gpt_neox.layers.0.attention.masked_bias", ())
    assert not is_computed("model.layers.0.self_attn.q_proj.bias", ())


@pytest.mark.parametrize("kind", ["gpt2", "llama", "phi", "gpt-neox", "bert", "distilbert", "qwen2"])
def test_no_parameter_of_a_network_is_taken_for_computed(kind):
    with torch.device("meta"), no_init_weights():
        names = dict(getattr(transformers, KINDS[kind][1])(config_of(kind)).named_parameters())
    assert not [name for name in names if is_computed(name, names)]


def test_old_names_of_norms_are_spelled_as_transformers_spells_them():
    assert spelled("bert.embeddings.LayerNorm.gamma") == "bert.embeddings.LayerNorm.weight"
    assert spelled("bert.encoder.layer.0.output.LayerNorm.beta") == "bert.encoder.layer.0.output.LayerNorm.bias"
    assert spelled("layers.0.ls_1.gamma") == "layers.0.ls_1.gamma"


def test_files_of_base_models_get_the_names_that_these_have_below_a_head():
    names = ["wte.weight", "h.0.ln_1.weight", "ln_f.weight"]
    base = {name: f"base of {name}" for name in names}
    full = {f"transformer.{name}": name for name in names} | {"lm_head.weight": "head"}
    alike = spelled_alike({"a": base, "b": full, "c": {**base, "lm_head.weight": "its own"}})
    assert alike["a"] == {f"transformer.{name}": f"base of {name}" for name in names}
    assert alike["b"] == full
    assert alike["c"] == {**alike["a"], "lm_head.weight": "its own"}
    assert spelled_alike({"a": base, "c": base}) == {"a": base, "c": base}
    other = {"model.layers.0.x.weight": 1}
    assert spelled_alike({"a": base, "d": other}) == {"a": base, "d": other}
