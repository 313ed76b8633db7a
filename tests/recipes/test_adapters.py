"""A base with a LoRA adapter has the tensors of PEFT's merged model; what is more than a product is refused."""

import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from harness.errors import BadInput
from harness.recipes.adapters import SETTINGS, WEIGHTS, adapt, weights_file
from tests.models.families import build
from tests.recipes.small_adapters import KINDS, put, write_bases
from tests.recipes.tiny_folders import tensors_in, values


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    write_bases(root)
    return root


def ours(base, adapter):
    config = json.loads((base / "config.json").read_text())
    stored = tensors_in(weights_file(adapter)).values()
    return adapt(tensors_in(base / "model.safetensors"), config, adapter, stored)


def check_equal(base, adapter, reader):
    """All that PEFT's merged model has that its base's files have too, and that the adapter changes something."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged = peft.PeftModel.from_pretrained(reader.from_pretrained(base), adapter).merge_and_unload().state_dict()
    adapted = ours(base, adapter).tensors
    stored = load_file(base / "model.safetensors")
    assert list(adapted) == list(tensors_in(base / "model.safetensors"))
    for name, source in adapted.items():
        torch.testing.assert_close(values(source).float(), merged[name], rtol=1e-6, atol=1e-6)
    assert any((values(source).float() - stored[name]).abs().max() > 0.01 for name, source in adapted.items())


LORAS = {
    "llama": {
        "plain": {"target_modules": ["q_proj", "down_proj"]},
        "all linear": {"target_modules": "all-linear"},
        "by the root of the rank": {"target_modules": ["q_proj"], "use_rslora": True},
        "patterns": {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"layers.0.self_attn.q_proj": 2},
                     "alpha_pattern": {"^model.layers.1.self_attn.v_proj": 32, "q_proj": 3}},
        "head saved whole": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        "both ends saved whole": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
        "on both ends": {"target_modules": ["embed_tokens", "lm_head"]},
        "on the embedding": {"target_modules": ["embed_tokens", "q_proj"]},
        "started otherwise": {"target_modules": ["q_proj"], "init_lora_weights": "gaussian"},
    },
    "gpt2": {
        "square and oblong transposed": {"target_modules": ["c_attn", "c_proj", "c_fc"]},
        "square, said otherwise": {"target_modules": ["attn.c_proj"], "fan_in_fan_out": False},
    },
    "bert": {
        "with its head": {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"},
        "on the embedding": {"target_modules": ["word_embeddings", "dense"]},
    },
}  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, each in LORAS.items() for name in each])
def test_tensors_are_those_of_pefts_merged_model(kind, name, bases, tmp_path):
    adapter = put(tmp_path / "adapter", bases / kind, KINDS[kind], **LORAS[kind][name])
    check_equal(bases / kind, adapter, KINDS[kind])


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
def test_names_may_lack_the_prefix_of_the_model_in_memory(kind, bases, tmp_path):
    """Files of a body alone begin at its layers."""
    adapter = put(tmp_path / "adapter", bases / kind, KINDS[kind], **next(iter(LORAS[kind].values())))
    whole = load_file(bases / kind / "model.safetensors")
    body = {"llama": "model.", "gpt2": "transformer.", "bert": "bert."}[kind]
    base = Path(shutil.copytree(bases / kind, tmp_path / "base"))
    save_file({name.removeprefix(body): tensor.clone() for name, tensor in whole.items()}, base / "model.safetensors")
    same = ours(bases / kind, adapter).tensors
    for name, source in ours(base, adapter).tensors.items():
        expected = same.get(body + name, same.get(name))
        assert torch.equal(values(source), values(expected))


def test_conv1d_layers_of_transformers_are_those_that_are_transposed():
    from harness.recipes.adapters import _TRANSPOSED_LAYERS

    for kind in ("gpt2", "openai-gpt"):
        found = {name.rpartition(".")[2] for name, part in build(kind).named_modules() if isinstance(part, Conv1D)}
        assert found
        assert found <= _TRANSPOSED_LAYERS


@pytest.mark.parametrize("settings", [{"target_modules": ["lm_head"]}, {"target_modules": ["embed_tokens", "lm_head"]},
                                      {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}])  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_tied_output_layer_that_is_adapted_is_one_of_its_own(settings, bases, tmp_path):
    """The model is the one that PEFT runs unmerged: merged in place, its embedding would change with its output."""
    base = bases / "tied"
    adapter = put(tmp_path / "adapter", base, **settings)
    adapted = ours(base, adapter)
    assert adapted.untied
    assert "lm_head.weight" in adapted.tensors
    module = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base, tie_word_embeddings=False)).eval()
    module.load_state_dict({name: values(source).float() for name, source in adapted.tensors.items()})
    wrapped = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    tokens = torch.arange(3, 40)[None]
    with torch.inference_mode():
        torch.testing.assert_close(module(tokens).logits, wrapped(tokens).logits, rtol=1e-5, atol=1e-5)


def test_an_embedding_whose_tied_output_layer_would_change_with_it_is_refused(bases, tmp_path):
    adapter = put(tmp_path / "adapter", bases / "tied", target_modules=["embed_tokens"])
    with pytest.raises(BadInput, match="output layer is tied to its embedding"):
        ours(bases / "tied", adapter)


def test_ties_stay_where_neither_end_is_adapted(bases, tmp_path):
    adapter = put(tmp_path / "adapter", bases / "tied", target_modules=["q_proj"])
    assert not ours(bases / "tied", adapter).untied


REFUSED = {
    "use_dora": {"use_dora": True},
    "bias": {"bias": "all"},
    "lora_bias": {"target_modules": ["c_attn"], "lora_bias": True},
    "trainable_token_indices": {"trainable_token_indices": [5, 7]},
    "layer_replication": {"layer_replication": [[0, 2], [1, 2]]},
    "init_lora_weights": {"init_lora_weights": "pissa"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_adapters_that_are_more_than_products_are_refused_with_what_helps(name, bases, tmp_path):
    base = bases / ("gpt2" if name == "lora_bias" else "llama")
    adapter = put(tmp_path / "adapter", base, **{"target_modules": ["q_proj"], **REFUSED[name]})
    with pytest.raises(BadInput, match=rf"{name}.*merge it into a folder first") as refused:
        ours(base, adapter)
    assert "\n" not in str(refused.value)


def test_other_kinds_of_adapters_are_refused(bases, tmp_path):
    module = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(bases / "llama"),
                                 peft.IA3Config(target_modules=["q_proj"], feedforward_modules=[]))  # fmt: skip
    module.save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="kind IA3"):
        ours(bases / "llama", tmp_path)


def damaged(adapter, copy, **changes):
    """A copy of an adapter with other settings."""
    shutil.copytree(adapter, copy)
    (copy / SETTINGS).write_text(json.dumps(json.loads((adapter / SETTINGS).read_text()) | changes))
    return copy


def test_what_does_not_fit_is_one_line_with_the_adapters_folder(bases, tmp_path):
    base = bases / "llama"
    adapter = put(tmp_path / "adapter", base, target_modules=["q_proj"])
    tensors = load_file(adapter / WEIGHTS)
    first = next(iter(tensors))
    cases = {
        "rank should be 8": damaged(adapter, tmp_path / "rank", r=8),
        "'r' is 'many'": damaged(adapter, tmp_path / "setting", r="many"),
        "'brand_new' of the adapter": damaged(adapter, tmp_path / "newer", brand_new={"a": 1}),
    }
    for words, kept in {
        "one of two factors is missing": {name: each for name, each in tensors.items() if name != first},
        "no tensor of the base": {name.replace("q_proj", "w_proj"): each for name, each in tensors.items()},
        "is it an adapter on another model": {name: each[:, :3].clone() if "lora_A" in name else each
                                              for name, each in tensors.items()},
    }.items():  # fmt: skip
        cases[words] = damaged(adapter, tmp_path / re.sub(r"\W", "", words))
        save_file({name: each.contiguous() for name, each in kept.items()}, cases[words] / WEIGHTS)
    cases["is not JSON"] = damaged(adapter, tmp_path / "cut")
    (cases["is not JSON"] / SETTINGS).write_bytes(b'{"r": \xff')
    for words, folder in cases.items():
        with pytest.raises(BadInput, match=re.escape(words)) as refused:
            ours(base, folder)
        assert str(folder) in str(refused.value)
        assert "\n" not in str(refused.value)


def test_folders_that_are_no_adapters_are_refused(bases, tmp_path):
    with pytest.raises(BadInput, match=f"{SETTINGS} is missing"):
        weights_file(bases / "llama")
    (tmp_path / SETTINGS).write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(BadInput, match="pickled weights are not read"):
        weights_file(tmp_path)


def test_nothing_heavy_is_imported_to_read_an_adapter():
    code = ("import sys, harness.recipes.adapters\n"
            "print([name for name in ('torch', 'transformers', 'peft', 'pandas') if name in sys.modules])")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
