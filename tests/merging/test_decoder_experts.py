"""Decoders written with experts: the same function, transformers' own format, and mergekit-moe's tensors."""

import json

import pytest
import torch
from mergekit.common import ModelReference
from mergekit.merge import MergeOptions
from mergekit.moe.config import Expert, MoEMergeConfig
from mergekit.moe.mixtral import MixtralMoE
from mergekit.moe.qwen3 import Qwen3MoE
from mergekit.moe.router import get_gate_params
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from harness.merging.arithmetic import average
from harness.merging.decoder_experts import DecoderForm
from harness.merging.forms import form_of
from harness.models.pretrained import FolderWeights
from harness.models.weights import module_with
from harness.pools.folder_model import FolderModel
from harness.types import NotApplicable
from tests.merging.decoders import decoder, dense, fine_tunes, logits, member, text

ROPE = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}
FAMILIES = {
    "llama": ("llama", {}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, wide heads, scaled positions": ("llama", {"head_dim": 6, "rope_parameters": ROPE, "rms_norm_eps": 1e-3}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral, sliding window": ("mistral", {"sliding_window": 4}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 4}),
    "qwen3, biases": ("qwen3", {"head_dim": 4, "attention_bias": True}),
}
families = pytest.mark.parametrize(("kind", "settings"), FAMILIES.values(), ids=FAMILIES)


def gates(form, experts, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(experts, 16, generator=generator) for _ in form.places]


def mixture(pool, k, seed=0):
    """The members' experts behind drawn routers."""
    models = [each.weights for each in pool.members]
    form = form_of(pool.members[0].architecture)
    architecture = form.sparse(len(models), k, 0.0)
    return architecture, module_with(architecture, form.assemble(models, models, gates(form, len(models), seed)))


@families
@pytest.mark.parametrize("k", [1, 2, 3])
def test_copies_of_one_model_say_what_it_says_behind_any_router(kind, settings, k):
    one = member("one", decoder(kind, **settings))
    form = form_of(one.architecture)
    module = module_with(form.sparse(3, k, 0.0), form.assemble([one.weights] * 3, [one.weights], gates(form, 3)))
    expected = logits(decoder(kind, **settings), text().inputs)
    scale = float(expected.abs().max())
    torch.testing.assert_close(logits(module, text().inputs), expected, rtol=1e-5, atol=1e-5 * scale)


@families
def test_a_saved_mixture_is_one_that_transformers_loads_and_a_pool_reads(kind, settings, tmp_path):
    architecture, module = mixture(fine_tunes(kind, **settings), 2)
    module.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    names = {
        "mixtral": "model.layers.1.block_sparse_moe.experts.2.w1.weight",
        "qwen2_moe": "model.layers.1.mlp.experts.2.gate_proj.weight",
        "qwen3_moe": "model.layers.1.mlp.experts.2.gate_proj.weight",
    }
    assert names[json.loads((tmp_path / "config.json").read_text())["model_type"]] in stored
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(loaded, text().inputs), logits(module, text().inputs), rtol=0, atol=0)
    read = FolderModel(str(tmp_path))
    assert read.architecture == architecture
    torch.testing.assert_close(logits(module_with(read.architecture, FolderWeights(tmp_path)), text().inputs),
                               logits(module, text().inputs), rtol=0, atol=0)  # fmt: skip


@pytest.fixture
def folders(tmp_path, request):
    """Members and their average as Hugging Face folders, whose dtype is said, as mergekit asks."""
    pool = fine_tunes(request.param)
    mean = average([each.weights for each in pool.members])
    for name, weights in [(each.name, each.weights) for each in pool.members] + [("mean", mean)]:
        module = dense(weights, pool.members[0])
        module.config.dtype = torch.float32
        module.save_pretrained(tmp_path / name)
    return pool, tmp_path


@pytest.mark.parametrize(("folders", "kind"), [("llama", MixtralMoE), ("qwen3", Qwen3MoE)], indirect=["folders"])
@pytest.mark.parametrize("seed", [0, 1])
def test_tensors_are_those_of_mergekit_moe_for_the_same_gates(folders, kind, seed):
    pool, folder = folders
    base = ModelReference.model_validate(str(folder / "mean"))
    experts = [Expert(source_model=ModelReference.model_validate(str(folder / each.name))) for each in pool.members]
    config = MoEMergeConfig(base_model=base, experts=experts, gate_mode="random", experts_per_token=2)
    torch.manual_seed(seed)
    drawn = get_gate_params(base, None, experts, mode="random")  # [layers, experts, hidden]
    assert kind().supports_config(config)
    kind().write_model(str(folder / "merged"), config, MergeOptions(), router_weights=list(drawn))
    theirs = AutoModelForCausalLM.from_pretrained(folder / "merged", dtype=torch.float32)

    models = [each.weights for each in pool.members]
    form = form_of(pool.members[0].architecture)
    architecture = form.sparse(len(models), 2, 0.0)
    ours = module_with(architecture, form.assemble(models, models, list(drawn)))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name
    assert torch.equal(logits(ours, text().inputs), logits(theirs, text().inputs))


@pytest.mark.parametrize(
    ("kind", "settings", "why"),
    [
        ("llama", {"attention_bias": True}, "'mixtral' has no 'attention_bias: True', as this 'llama' has"),
        ("llama", {"mlp_bias": True}, "'mixtral' has no 'mlp_bias: True'"),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
         "'qwen3_moe' has the same attention in all layers"),
        ("gpt2", {"n_embd": 16, "n_head": 2, "n_layer": 1},
         "'gpt2' has no counterpart with experts here: llama, mistral, qwen2, qwen3 have"),
        ("mixtral", {"num_local_experts": 2}, "'mixtral' has no counterpart with experts"),
    ],
)  # fmt: skip
def test_what_a_sparse_model_cannot_have_is_refused(kind, settings, why):
    form = DecoderForm(member("one", decoder(kind, **settings)).architecture)
    with pytest.raises(NotApplicable, match=why):
        form.sparse(2, 1, 0.0)


def test_a_setting_that_means_nothing_to_the_dense_kind_is_no_hindrance():
    form = DecoderForm(member("one", decoder("llama", residual_multiplier=0.5)).architecture)
    assert "residual_multiplier" not in dict(form.sparse(2, 1, 0.0).options)["config"]
