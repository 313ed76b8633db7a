"""GGUF files become plain Hugging Face folders: the same numbers, and the tokens that the file asks for."""

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.errors import BadInput
from harness.models import gguf as conversion
from harness.models.pretrained import load_pretrained
from tests.small_gguf import TEXT, gguf_name, rotated, trained_tokenizer, write_gguf

TOKENS = torch.arange(60).view(2, 30) * 4


def logits(module):
    with torch.inference_mode():
        return module(input_ids=TOKENS).logits


def convert(folder, **options):
    """The converted folder, and the model that was written to the file."""
    model = write_gguf(folder / "tiny.gguf", **options)
    (folder / "made").mkdir()
    conversion.convert(folder / "tiny.gguf", folder / "made")
    return folder / "made", model


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return convert(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    return convert(tmp_path_factory.mktemp("quantised"), quantised=True)


def test_an_unquantised_model_gives_the_logits_it_had(plain):
    """Rows of queries and keys are in another order in the file: left there, every logit would be another."""
    folder, model = plain
    assert torch.equal(logits(load_pretrained(folder)), logits(model))
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(folder)), logits(model))


def test_embeddings_are_stored_once_and_tied(plain):
    folder, model = plain
    assert set(load_file(folder / "model.safetensors")) == set(model.state_dict()) - {"lm_head.weight"}
    loaded = load_pretrained(folder)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


def test_quantised_weights_are_what_gguf_itself_reads(quantised):
    """In float32, without a second rounding."""
    folder, model = quantised
    found = load_file(folder / "model.safetensors")
    packed = {tensor.name: tensor for tensor in gguf.GGUFReader(folder.parent / "tiny.gguf").tensors}
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32
        source = packed[gguf_name(name)]
        expected = gguf.quants.dequantize(source.data, source.tensor_type)
        heads = model.config.num_attention_heads if "q_proj" in name else model.config.num_key_value_heads
        array = rotated(tensor.numpy(), heads) if "q_proj" in name or "k_proj" in name else tensor.numpy()
        np.testing.assert_array_equal(array, expected.reshape(array.shape))
    assert not torch.equal(found["model.embed_tokens.weight"], model.model.embed_tokens.weight)


def test_a_folder_holds_no_trace_of_quantisation(quantised):
    assert "quantization" not in (quantised[0] / "config.json").read_text()


def test_a_tokenizer_that_splits_digits_gives_the_tokens_it_was_trained_with(plain):
    found = AutoTokenizer.from_pretrained(plain[0])
    expected = trained_tokenizer().encode(TEXT).ids
    assert found.encode(TEXT) == expected
    assert found.decode(expected) == TEXT
    assert (found.bos_token, found.eos_token) == ("<|start|>", "<|end|>")
    without = trained_tokenizer().from_str(trained_tokenizer().to_str())
    without.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert without.encode(TEXT).ids != expected  # so the text can tell the two apart


def test_a_tokenizer_that_splits_in_a_way_unknown_here_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"tiny\.gguf: the tokenizer splits text as 'llama-bpe' \(known: .*smollm"):
        convert(tmp_path, pre="llama-bpe")


def test_a_missing_reader_is_one_line_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput) as caught:
        conversion.convert(tmp_path / "tiny.gguf", tmp_path)
    assert str(caught.value) == "tiny.gguf: a GGUF file is read with the package gguf; pip install 'stockpot[gguf]'"
