"""An adapter is the model that PEFT runs, whatever it adapts, or is refused with the reason."""

import json
import shutil
from copy import deepcopy

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from harness.errors import BadInput
from harness.models.weights import module_with
from harness.pools.folder_model import FolderModel
from tests.models.families import build

TOKENS = torch.arange(3, 40)[None]


@pytest.fixture(scope="module", params=["untied", "tied"])
def base(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    module = build("llama")
    if request.param == "tied":
        module.config.tie_word_embeddings = True
        module.tie_weights()
    module.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    build("llama").save_pretrained(folder)
    return folder


def lora(**settings):
    return peft.LoraConfig(**{"r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **settings})


def put(folder, base, config, noise=0.2, **options):
    """A trained-looking adapter in a folder."""
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    module = peft.get_peft_model(model, deepcopy(config))  # PEFT writes into it, and another base reads that
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(noise * torch.randn_like(parameter))
    module.save_pretrained(folder, **options)
    return folder


def logits(module):
    with torch.inference_mode():
        return module.eval()(input_ids=TOKENS).logits


def as_peft_runs(folder, base):
    """The logits of PEFT's own model, and of what it makes of it when it merges."""
    module = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder)
    return logits(module), logits(module.merge_and_unload())


def as_peft_says(folder, base, merges_alike=True):
    """The member is PEFT's model: unmerged, and merged unless PEFT's own merge is another model; rebuilt it is too."""
    model = FolderModel(str(folder), str(base))
    model.check()
    unmerged, merged = as_peft_runs(folder, base)
    weights = model.weights()
    module = weights.module()
    tolerance = 1e-5 * float(unmerged.abs().max())
    for each in (module, module_with(model.architecture, weights)):
        torch.testing.assert_close(logits(each), unmerged, rtol=0, atol=tolerance)
        if merges_alike:
            torch.testing.assert_close(logits(each), merged, rtol=0, atol=tolerance)
    plain = logits(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32))
    assert plain.shape != unmerged.shape or (plain - unmerged).abs().max() > 100 * tolerance
    assert model.examine(module) == []


LORAS = {
    "plain": lora(),
    "patterns": lora(rank_pattern={"layers.0.self_attn.q_proj": 2}, alpha_pattern={"layers.1.self_attn.q_proj": 32}),
    "rank-stabilised": lora(use_rslora=True),
    "dora": lora(use_dora=True),
    "biases": lora(bias="all"),
    "head saved": lora(modules_to_save=["lm_head"]),
    "embedding saved": lora(modules_to_save=["embed_tokens"]),
    "both saved": lora(modules_to_save=["embed_tokens", "lm_head"]),
    "on embedding": lora(target_modules=["embed_tokens"]),
    "on both": lora(target_modules=["embed_tokens", "lm_head", "q_proj"]),
    "on both, tied": lora(target_modules=["embed_tokens", "lm_head"], ensure_weight_tying=True),
    "some tokens": lora(trainable_token_indices=[5, 7]),
    "repeated layers": lora(layer_replication=[[0, 2], [1, 2]]),
    "one layer": lora(layers_to_transform=[1]),
    "one layer of a pattern": lora(layers_to_transform=[0], layers_pattern="layers"),
    "all linear": lora(target_modules="all-linear"),
    "all linear but some": lora(target_modules="all-linear", exclude_modules=["q_proj"]),
    "by expression": lora(target_modules=r".*\.1\..*_proj"),
    "all at once": lora(use_rslora=True, use_dora=True, rank_pattern={"0.self_attn.q_proj": 2},
                        alpha_pattern={"1.self_attn.q_proj": 7}, modules_to_save=["norm"]),
    "by singular values": lora(init_lora_weights="pissa"),
}  # fmt: skip
PEFT_MERGES_OTHERWISE = {("repeated layers", False), ("repeated layers", True), ("on embedding", True),
                         ("on both", True), ("on both, tied", True)}  # fmt: skip
"""Adapters, and whether on a tied base, whose merge changes what layers share as often as they are named."""


@pytest.mark.parametrize("name", LORAS)
def test_low_rank_adapters(name, base, tmp_path):
    tied = base.name.startswith("tied")
    as_peft_says(put(tmp_path / "adapter", base, LORAS[name]), base, (name, tied) not in PEFT_MERGES_OTHERWISE)


@pytest.fixture(scope="module", params=["qwen2", "opt", "gpt2"])
def biased(request, tmp_path_factory):
    """Models with biases: of some layers, of all, and of layers whose weights are transposed; all biases are drawn."""
    folder = tmp_path_factory.mktemp(request.param)
    module = build(request.param)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
    module.save_pretrained(folder)
    return folder


BIASED = {
    "plain": {},
    "all biases": {"bias": "all"},
    "biases of what is adapted": {"bias": "lora_only"},
    "with DoRA": {"bias": "all", "use_dora": True},
    "beside saved modules": {"bias": "all", "modules_to_save": ["ln_f", "norm", "final_layer_norm"]},
    "low-rank biases": {"lora_bias": True},
    "all linear": {"bias": "all", "target_modules": "all-linear"},
}


@pytest.mark.parametrize("name", BIASED)
def test_low_rank_adapters_of_models_with_biases(name, biased, tmp_path):
    """A module that is saved beside all biases has its own written twice by PEFT, which then reads one of them."""
    config = lora(**{"target_modules": ["q_proj", "v_proj", "c_attn"], **BIASED[name]})
    as_peft_says(put(tmp_path / "adapter", biased, config), biased)


OTHERS = {
    "ia3": peft.IA3Config(target_modules=["q_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "loha": peft.LoHaConfig(target_modules=["q_proj"]),
    "lokr": peft.LoKrConfig(target_modules=["q_proj"]),
    "oft": peft.OFTConfig(target_modules=["q_proj"], oft_block_size=8),
    "vera": peft.VeraConfig(target_modules=["q_proj"]),
    "layer norms": peft.LNTuningConfig(target_modules=["norm"]),
    "fourier": peft.FourierFTConfig(target_modules=["q_proj"], n_frequency=10),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_adapters_on_weights(name, untied, tmp_path):
    as_peft_says(put(tmp_path / "adapter", untied, OTHERS[name]), untied)


def test_an_embedding_that_is_saved_beside_an_adapter_is_the_bases(base, tmp_path):
    as_peft_says(put(tmp_path / "adapter", base, lora(), save_embedding_layers=True), base)


def test_an_adapter_on_experts_of_a_mixture(tmp_path):
    build("mixtral").save_pretrained(tmp_path / "base")
    for name, settings in {
        "beside": {"target_modules": ["q_proj", "o_proj"]},
        "on them": {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"]},
    }.items():
        as_peft_says(put(tmp_path / name, tmp_path / "base", lora(**settings)), tmp_path / "base")


def test_an_adapter_that_peft_cannot_merge_is_refused(tmp_path):
    """That of a convolution in groups: PEFT runs it unmerged, and merges it to something else."""
    build("lfm2_moe").save_pretrained(tmp_path / "base")
    folder = put(tmp_path / "adapter", tmp_path / "base", lora(r=32, target_modules=["conv.conv"]))
    with pytest.raises(BadInput, match=r"another model|cannot be merged"):
        FolderModel(str(folder), str(tmp_path / "base")).weights().module()


def test_an_adapter_whose_deltas_are_zero_is_read_and_named(untied, tmp_path):
    put(tmp_path / "adapter", untied, lora(), noise=0.0)
    model = FolderModel(str(tmp_path / "adapter"), str(untied))
    model.check()
    assert "changes nothing" in model.examine(model.weights().module())[0]


def test_an_adapter_that_changes_the_output_layer_alone_changes_something(base, tmp_path):
    folder = put(tmp_path / "adapter", base, lora(modules_to_save=["lm_head"]), noise=0.0)
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    save_file({k: v + 0.1 if "lm_head" in k else v for k, v in weights.items()}, file, {"format": "pt"})
    model = FolderModel(str(folder), str(base))
    assert model.examine(model.weights().module()) == []


@pytest.mark.parametrize(("settings", "noise"), [
    ({"target_modules": ["lm_head"]}, 0.2),
    ({"layer_replication": [[0, 2], [0, 2]]}, 0.0),
    ({"layer_replication": [[0, 1]]}, 0.0),
])  # fmt: skip
def test_an_adapter_that_changes_the_model_anywhere_is_not_said_to_change_nothing(settings, noise, base, tmp_path):
    put(tmp_path / "adapter", base, lora(**settings), noise=noise)
    model = FolderModel(str(tmp_path / "adapter"), str(base))
    assert not model.examine(model.weights().module())


def test_an_adapter_with_weights_that_are_no_numbers_says_so(untied, tmp_path):
    folder = put(tmp_path / "adapter", untied, lora())
    file = folder / "adapter_model.safetensors"
    save_file({k: v * float("nan") for k, v in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(BadInput, match="holds NaN weights in"):
        FolderModel(str(folder), str(untied)).weights().module()


def test_a_folder_with_a_whole_model_and_an_adapter_is_refused(untied, tmp_path):
    shutil.copytree(untied, tmp_path / "both")
    put(tmp_path / "both", untied, lora())
    with pytest.raises(BadInput, match="a whole model beside adapter_config"):
        FolderModel(str(tmp_path / "both"), str(untied)).check()


def refused(folder, base):
    with pytest.raises(BadInput) as reason:
        FolderModel(str(folder), str(base)).check()
    assert "\n" not in str(reason.value)
    return str(reason.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: {k.removeprefix("base_model.model."): v for k, v in w.items()}, "match nothing in the base"),
        (lambda w: {}, "holds no tensors"),
        (lambda w: dict(list(w.items())[:-1]), "lacks tensors"),
        (lambda w: {k: v[:, :3].contiguous() for k, v in w.items()}, "size mismatch"),
        (lambda w: {**w, "base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight": torch.ones(4, 32)},
         "match nothing"),
    ],
    ids=["stripped names", "empty", "a tensor short", "other shapes", "a tensor too many"],
)  # fmt: skip
def test_a_file_that_peft_would_read_in_part_is_refused(change, words, untied, tmp_path):
    folder = put(tmp_path / "adapter", untied, lora())
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})
    assert words in refused(folder, untied)


@pytest.mark.parametrize("kind", [peft.PromptTuningConfig, peft.PrefixTuningConfig, peft.PromptEncoderConfig])
def test_adapters_that_add_inputs_are_refused(kind, untied, tmp_path):
    folder = put(tmp_path / "adapter", untied, kind(task_type="CAUSAL_LM", num_virtual_tokens=3))
    assert "adds inputs, not weights" in refused(folder, untied)


def test_a_resized_vocabulary_is_refused(untied, tmp_path):
    module = AutoModelForCausalLM.from_pretrained(untied)
    module.resize_token_embeddings(70)
    peft.get_peft_model(module, lora()).save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    assert "size mismatch" in refused(tmp_path / "adapter", untied)


def test_biases_for_layers_without_any_are_refused(untied, tmp_path):
    folder = put(tmp_path / "adapter", untied, lora(lora_bias=True))
    assert "has no bias" in refused(folder, untied)


def test_what_is_no_adapter_is_refused(untied, tmp_path):
    folder = put(tmp_path / "adapter", untied, lora())
    shutil.copytree(folder, tmp_path / "pickled")
    (tmp_path / "pickled/adapter_model.safetensors").rename(tmp_path / "pickled/adapter_model.bin")
    assert "pickled" in refused(tmp_path / "pickled", untied)
    assert "base is an adapter" in refused(folder, folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    for content in ("[]", "{", json.dumps({**settings, "peft_type": "MINE"})):
        (folder / "adapter_config.json").write_text(content)
        assert refused(folder, untied)
