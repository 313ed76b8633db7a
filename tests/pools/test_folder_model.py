"""Hugging Face folders: the same numbers as transformers', and a reason for everything that is not read."""

import json
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from harness.errors import BadInput
from harness.merging.guards import check_mergeable
from harness.models import pretrained
from harness.models.architectures import build
from harness.models.causal_lm import tiny_llama
from harness.models.checkpoint import INDEX
from harness.models.pretrained import load_pretrained
from harness.models.weights import module_with, save_network
from harness.pools.folder_model import FolderModel
from harness.types import Architecture, Member, NotApplicable

TOKENS = torch.arange(24).view(2, 12) % 20


def logits(module):
    with torch.inference_mode():
        return module.eval()(input_ids=TOKENS).logits


@pytest.fixture
def llama(tmp_path):
    torch.manual_seed(0)
    tiny_llama(vocab=32, hidden=16, layers=2, heads=2).save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


@pytest.fixture
def gpt2(tmp_path):
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2)).save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2"


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_folder_gives_the_logits_that_transformers_gives(kind, request):
    folder = request.getfixturevalue(kind)
    assert torch.equal(logits(load_pretrained(folder)), logits(AutoModelForCausalLM.from_pretrained(folder)))


def test_tied_embeddings_stay_tied(llama):
    module = load_pretrained(llama)
    assert module.lm_head.weight is module.model.embed_tokens.weight


def test_weights_are_the_files_and_the_digest_is_theirs(llama, tmp_path):
    model = FolderModel(str(llama))
    file = load_file(llama / "model.safetensors")
    assert set(model.weights()) == set(file)
    assert all(torch.equal(model.weights()[name], tensor) for name, tensor in file.items())
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for path in llama.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert FolderModel(str(copy)).digest == model.digest
    file["model.norm.weight"] += 1
    save_file(file, copy / "model.safetensors", {"format": "pt"})
    assert FolderModel(str(copy)).digest != model.digest


def test_an_adapter_is_its_base_with_the_product_added(llama, tmp_path):
    from peft import LoraConfig, get_peft_model

    module = get_peft_model(load_pretrained(llama), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    module.save_pretrained(tmp_path / "adapter")
    model = FolderModel(str(tmp_path / "adapter"), str(llama))
    model.check()
    base, merged = FolderModel(str(llama)).weights(), model.weights()
    assert set(merged) == set(base)
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert changed == {f"model.layers.{i}.self_attn.q_proj.weight" for i in range(2)}
    assert model.digest != FolderModel(str(llama)).digest
    assert model.architecture == FolderModel(str(llama)).architecture
    with pytest.raises(BadInput, match="needs the pool's base"):
        FolderModel(str(tmp_path / "adapter")).weights()


def refuse(folder, words):
    with pytest.raises(BadInput, match=words):
        FolderModel(str(folder)).check()


def test_what_cannot_be_read_says_why(llama, tmp_path):
    refuse(tmp_path / "nowhere", "no such folder")
    (llama / "config.json").rename(llama / "kept.json")
    refuse(llama, "config.json is missing")
    settings = json.loads((llama / "kept.json").read_text())
    (llama / "config.json").write_text(json.dumps({**settings, "model_type": "vit"}))
    refuse(llama, "'vit' is no causal language model")


def test_pickles_are_not_read(llama):
    (llama / "model.safetensors").rename(llama / "pytorch_model.bin")
    refuse(llama, "pickled weights are not read")


def test_a_truncated_shard_is_named(llama):
    content = (llama / "model.safetensors").read_bytes()
    (llama / "model.safetensors").write_bytes(content[: len(content) // 2])
    refuse(llama, "model.safetensors cannot be read")


@pytest.mark.parametrize("name", ["../other.safetensors", "/tmp/other.safetensors"])
def test_a_shard_outside_the_folder_is_refused(llama, name):
    (llama / "model.safetensors").rename(llama / "part.safetensors")  # which goes before an index
    (llama / INDEX).write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))
    refuse(llama, "lies outside the folder")


def test_a_tensor_that_the_index_promises_and_no_shard_holds(llama):
    (llama / "model.safetensors").rename(llama / "part.safetensors")
    (llama / INDEX).write_text(json.dumps({"weight_map": {"model.lost.weight": "part.safetensors"}}))
    refuse(llama, "'model.lost.weight'")


def test_weights_of_another_configuration_are_refused(llama):
    settings = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps({**settings, "vocab_size": 40}))
    refuse(llama, "do not fit")


def test_nan_weights_are_not_merged(llama):
    file = load_file(llama / "model.safetensors")
    file["model.norm.weight"][0] = float("nan")
    save_file(file, llama / "model.safetensors", {"format": "pt"})
    model = FolderModel(str(llama))
    member = Member("m0", model.architecture, model.weights(), "x", 0, {}, "d")
    with pytest.raises(NotApplicable, match="NaN"):
        check_mergeable([member, member])


def test_a_network_for_images_is_read_from_its_two_files(tmp_path):
    architecture = Architecture("mlp", (("classes", 3), ("hidden", 4), ("side", 4)))
    network = build(architecture).eval()
    save_network(architecture, network, tmp_path)
    model = FolderModel(str(tmp_path))
    model.check()
    assert (model.kind, model.architecture, model.tokenizer) == ("images", architecture, None)
    images = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(module_with(model.architecture, model.weights())(images), network(images))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('["mpl", {}]', "did you mean 'mlp'"),
        ('["causal_lm", {}]', "unknown architecture"),
        ("[1", "is not a name and its options"),
        ('"mlp"', "is not a name and its options"),
        ('["mlp", 3]', "is not a name and its options"),
        ('["mlp", {}]', "model.safetensors is missing"),
    ],
)
def test_a_network_that_cannot_be_read_is_refused_with_the_reason(tmp_path, content, words):
    (tmp_path / "architecture.json").write_text(content)
    with pytest.raises(BadInput, match=words):
        FolderModel(str(tmp_path)).check()


def test_a_models_tokenizer_and_settings_are_part_of_what_it_is(llama):
    def digest():
        return FolderModel(str(llama)).digest

    bare = digest()
    inner = Tokenizer(models.WordLevel({"<e>": 0, "a": 1, "b": 2}, unk_token="<e>"))
    for end in ("<e>", "a"):
        PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=end).save_pretrained(llama)
        found = digest()
        assert found != bare
        bare = found
    settings = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps({**settings, "attn_implementation": "eager"}))
    assert digest() != bare
    (llama / "config.json").write_text(json.dumps({**settings, "attn_implementation": "kernels-community/flash-attn3"}))
    refuse(llama, "names a kernel of the hub")


def test_weights_are_read_once_for_a_network(llama, monkeypatch):
    read = Counter()
    plain = pretrained._read
    monkeypatch.setattr(pretrained, "_read", lambda file, name: (read.update([name]), plain(file, name))[1])
    weights = FolderModel(str(llama)).weights()
    module_with(FolderModel(str(llama)).architecture, weights)
    assert set(read.values()) == {1}
