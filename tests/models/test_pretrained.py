"""A folder is read as transformers' ``from_pretrained`` reads it, over every family that can be built tiny."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BertConfig, BertForMaskedLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from harness.errors import BadInput
from harness.merging.arithmetic import average
from harness.models.checkpoint import read_config
from harness.models.pretrained import FolderWeights, check_causal, layout, load_pretrained, stored_dtype
from harness.models.streamed import streamed_module
from harness.models.weights import module_with, without_ties
from harness.pools.folder_model import FolderModel
from tests.models.families import build

NOT_TINY = {
    "bailing_hybrid", "blt", "cohere_compass_text", "dbrx", "dots3_note", "dots3_note_text", "emu3", "fuyu", "gemma3",
    "gemma3n", "gemma4", "gemma4_assistant", "gemma4_unified", "gemma4_unified_assistant", "git", "got_ocr2",
    "kimi_linear", "llama4", "longcat_flash", "mllama", "moss_transcribe_diarize", "musicgen", "musicgen_melody",
    "phi4_multimodal", "qwen3_5", "qwen3_5_moe", "qwen4_exp", "zamba", "zamba2", "zaya",
}  # fmt: skip
"""Families with parts for images or sound, or sizes that their configuration does not let be small."""
NOT_CAUSAL = {"cpmant", "xlm", "xlnet"}
"""What they say of a token depends on those that follow it."""
FAMILIES = sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - NOT_TINY)
TOKENS = torch.arange(3, 15)[None]


def logits(module):
    with torch.inference_mode():
        return module.eval()(input_ids=TOKENS, use_cache=False).logits


def reference(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def put(folder, module):
    module.save_pretrained(folder)
    return folder


def edit(folder, change):
    file = folder / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, {"format": "pt"})


def configure(folder, **settings):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_tensor_and_logit_is_the_one_that_transformers_loads(kind, tmp_path):
    put(tmp_path, build(kind))
    expected = reference(tmp_path)
    weights = FolderWeights(tmp_path)
    state = without_ties(expected)
    assert list(weights) == list(state)
    for name, tensor in state.items():
        assert torch.equal(weights[name].to(tensor.dtype), tensor), name
    built = module_with(layout(tmp_path).architecture, weights)
    torch.testing.assert_close(logits(built), logits(expected), rtol=1e-5, atol=1e-5)
    streamed = streamed_module(layout(tmp_path).architecture, weights)  # for which there may be no room
    assert torch.equal(logits(streamed), logits(expected))
    assert any(each.is_meta for each in streamed.parameters())
    assert streamed.device == expected.device
    if kind not in NOT_CAUSAL:
        check_causal(expected, kind)
        return
    with pytest.raises(BadInput, match="sees the tokens"):
        check_causal(expected, kind)


def test_a_configuration_is_the_callers_own_and_says_what_the_file_says_now(tmp_path):
    put(tmp_path, build("llama"))
    file = tmp_path / "config.json"
    read_config(tmp_path).vocab_size = 1
    assert read_config(tmp_path).vocab_size == 64
    before = file.stat()
    file.write_text(file.read_text().replace('"vocab_size": 64', '"vocab_size": 65'))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert read_config(tmp_path).vocab_size == 65


@pytest.mark.parametrize("kind", ["llama", "mixtral", "gpt_neox", "qwen2_moe", "deepseek_v3"])
def test_a_merge_is_the_mean_of_what_transformers_loads_and_is_written_in_its_format(kind, tmp_path):
    folders = [put(tmp_path / str(seed), build(kind, seed)) for seed in range(2)]
    merged = average([FolderWeights(folder) for folder in folders])
    module = module_with(layout(folders[0]).architecture, merged)
    put(tmp_path / "merged", module)
    assert set(load_file(tmp_path / "merged/model.safetensors")) == set(load_file(folders[0] / "model.safetensors"))
    one, other = (reference(folder).state_dict() for folder in folders)
    for name, tensor in reference(tmp_path / "merged").state_dict().items():
        torch.testing.assert_close(tensor, (one[name] + other[name]) / 2, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bloom", "mixtral"])
def test_names_with_and_without_the_base_models_prefix_are_read(kind, tmp_path):
    put(tmp_path, build(kind))
    prefix = reference(tmp_path).base_model_prefix + "."

    def strip(weights):
        for name in list(weights):
            weights[name.removeprefix(prefix)] = weights.pop(name)

    before = logits(reference(tmp_path))
    edit(tmp_path, strip)
    assert torch.equal(logits(reference(tmp_path)), before)
    weights, state = FolderWeights(tmp_path), without_ties(reference(tmp_path))
    assert all(torch.equal(weights[name], tensor) for name, tensor in state.items())
    assert list(weights) == list(state)


@pytest.fixture
def tied(tmp_path):
    module = build("llama")
    module.config.tie_word_embeddings = True
    module.tie_weights()
    return put(tmp_path / "tied", module)


def same_as_transformers(folder):
    expected = logits(reference(folder))
    assert torch.equal(logits(load_pretrained(folder)), expected)
    built = module_with(layout(folder).architecture, FolderWeights(folder))
    torch.testing.assert_close(logits(built), expected, rtol=1e-6, atol=1e-6)
    return built


def test_tied_tensors_that_are_stored_with_other_values_are_two(tied):
    edit(tied, lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"] + 0.3}))
    built = same_as_transformers(tied)
    assert not torch.equal(built.lm_head.weight, built.model.embed_tokens.weight)
    assert "lm_head.weight" in FolderWeights(tied)
    assert "they are read as two" in layout(tied).notes[0]


def test_tied_tensors_that_are_stored_twice_alike_are_one(tied):
    plain = layout(tied)
    edit(tied, lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"].clone()}))
    built = same_as_transformers(tied)
    assert built.lm_head.weight is built.model.embed_tokens.weight
    assert (layout(tied).names, layout(tied).architecture) == (plain.names, plain.architecture)


def test_of_tied_tensors_either_may_be_the_stored_one(tied):
    edit(tied, lambda w: w.update({"lm_head.weight": w.pop("model.embed_tokens.weight")}))
    built = same_as_transformers(tied)
    assert built.lm_head.weight is built.model.embed_tokens.weight


def test_the_files_are_those_that_transformers_chooses(tmp_path):
    """One whole file goes before an index, and another variant of the weights is not read."""
    put(tmp_path, build("llama", 0))
    other = build("llama", 1)
    other.save_pretrained(tmp_path / "other", max_shard_size="20KB")
    for file in (tmp_path / "other").glob("model*"):
        file.rename(tmp_path / file.name)
    same_as_transformers(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    same_as_transformers(tmp_path)
    torch.testing.assert_close(logits(load_pretrained(tmp_path)), logits(other))


def test_tensors_that_the_model_does_not_have_are_ignored_and_named(tmp_path):
    put(tmp_path, build("llama"))
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    edit(tmp_path, lambda w: w.update(old))
    assert layout(tmp_path).notes == ()
    edit(tmp_path, lambda w: w.update({"value_head.weight": torch.ones(4)}))
    same_as_transformers(tmp_path)
    assert "value_head.weight" in layout(tmp_path).notes[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_weights_are_read_in_the_precision_that_they_have(dtype, tmp_path):
    put(tmp_path, build("llama").to(dtype))
    assert stored_dtype(tmp_path) == dtype
    assert {FolderWeights(tmp_path)[name].dtype for name in FolderWeights(tmp_path)} == {dtype}
    same_as_transformers(tmp_path)
    configure(tmp_path, dtype=None, torch_dtype=None)
    assert stored_dtype(tmp_path) == dtype


def refused(folder):
    with pytest.raises(BadInput) as reason:
        FolderModel(str(folder)).check()
    with pytest.raises(BadInput):
        load_pretrained(folder)
    assert "\n" not in str(reason.value)
    return str(reason.value)


@pytest.mark.parametrize(
    "name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight", "model.embed_tokens.weight"]
)
def test_a_missing_tensor_is_refused_where_transformers_would_draw_it_at_random(name, tmp_path):
    put(tmp_path, build("llama"))
    edit(tmp_path, lambda w: w.pop(name))
    assert f"'{name}' is missing" in refused(tmp_path)


def test_a_missing_expert_is_refused(tmp_path):
    put(tmp_path, build("mixtral"))
    edit(tmp_path, lambda w: w.pop(next(name for name in w if ".experts.3.w2" in name)))
    assert "do not fit" in refused(tmp_path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"vocab_size": 65}, "do not fit the network"),
        ({"num_hidden_layers": 3}, "is missing"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised weights cannot be combined"),
        ({"model_type": "vit"}, "'vit' is no causal language model"),
        ({"model_type": ["llama"]}, "no causal language model"),
        ({"model_type": "mine", "auto_map": {"AutoConfig": "code.py"}}, "brings its own code, which is not run"),
        ({"hidden_size": "wide"}, "refused by transformers"),
    ],
)
def test_what_cannot_be_read_says_why_in_one_line(settings, words, tmp_path):
    put(tmp_path, build("llama"))
    configure(tmp_path, **settings)
    assert words in refused(tmp_path)


def test_a_familys_own_code_is_not_run_but_transformers(tmp_path):
    put(tmp_path, build("llama"))
    (tmp_path / "modeling.py").write_text("open('marker', 'w')")
    configure(tmp_path, auto_map={"AutoModelForCausalLM": "modeling.Model"})
    same_as_transformers(tmp_path)
    assert "own code is not run" in layout(tmp_path).notes[0]


def test_an_encoder_is_refused(tmp_path):
    small = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "num_hidden_layers": 1}
    put(tmp_path, BertForMaskedLM(BertConfig(vocab_size=40, **small)))
    assert "sees the tokens that it is asked for" in refused(tmp_path)


def test_a_model_that_looks_ahead_is_found_by_what_it_says():
    for kind in ("rembert", "roformer"):
        module = build(kind)
        for part in module.modules():
            if hasattr(part, "is_decoder"):
                part.is_decoder = False
        module.config.is_decoder = False
        with pytest.raises(BadInput, match="sees the tokens"):
            check_causal(module, kind)
