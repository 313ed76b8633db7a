"""Folders of safetensors: read as transformers and the library read them, and refused where they refuse."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from harness.errors import BadInput
from harness.models.checkpoint import checkpoint_files
from harness.streaming.shards import INDEX, SINGLE, read_folder, read_header

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b.c": torch.ones(5, dtype=torch.bfloat16), "n": torch.tensor(7)}


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    return LlamaForCausalLM(config)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Two shards and their index."""
    save_file({"a": TENSORS["a"]}, tmp_path / "one.safetensors")
    save_file({name: TENSORS[name] for name in ("b.c", "n")}, tmp_path / "two.safetensors")
    names = {"a": "one.safetensors", "b.c": "two.safetensors", "n": "two.safetensors"}
    (tmp_path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return tmp_path


@pytest.mark.parametrize("shard_size", ["5KB", "50GB"])
def test_the_files_are_those_that_transformers_reads(tmp_path: Path, model: LlamaForCausalLM, shard_size: str) -> None:
    model.save_pretrained(tmp_path, max_shard_size=shard_size)
    save_file({"stray": torch.ones(1)}, tmp_path / "other.safetensors")
    folder = read_folder(tmp_path)
    assert list(folder.files) == checkpoint_files(tmp_path, model.config)
    assert folder.tensors.keys() == model.state_dict().keys()
    if shard_size == "50GB":  # a single file has the say where there is an index too
        (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"stray": "other.safetensors"}}))
        assert list(read_folder(tmp_path).files) == checkpoint_files(tmp_path, model.config)


def test_every_tensor_lies_where_the_header_says(sharded: Path) -> None:
    folder = read_folder(sharded)
    assert {name: tensor.dtype for name, tensor in folder.tensors.items()} == {"a": "F32", "b.c": "BF16", "n": "I64"}
    for name, tensor in folder.tensors.items():
        data = tensor.path.read_bytes()[tensor.offset : tensor.offset + tensor.nbytes]
        stored = torch.frombuffer(bytearray(data), dtype=TENSORS[name].dtype).view(tensor.shape)
        assert torch.equal(stored, TENSORS[name])
    places = [(folder.files.index(tensor.path), tensor.offset) for tensor in folder.tensors.values()]
    assert places == sorted(places)


def test_links_as_in_the_cache_of_the_hub_are_followed(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    save_file(TENSORS, blobs / "0a1b")
    (snapshot / SINGLE).symlink_to(Path("../blobs/0a1b"))
    assert read_folder(snapshot).tensors.keys() == TENSORS.keys()


def _index(folder: Path, **names: str) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": names}))


def _cut(file: Path, nbytes: int) -> None:
    os.truncate(file, file.stat().st_size + nbytes)


def _header(file: Path, change: Callable[[dict], None] | bytes) -> None:
    """Another header over the same data."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    if callable(change):
        header = json.loads(data[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
    else:
        text = change
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


FILE_FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda f: f.write_bytes(b""), "0 bytes"),
    "a few bytes": (lambda f: f.write_bytes(b"\x10\0\0"), "3 bytes"),
    "cut off in its header": (lambda f: os.truncate(f, 20), "20 bytes"),
    "cut off in its data": (lambda f: _cut(f, -1), "its header says"),
    "longer than its header says": (lambda f: _cut(f, 8), "its header says"),
    "a header of no length": (lambda f: _header(f, b""), "not JSON"),
    "a header that is too long": (lambda f: f.write_bytes(b"\xff" * 64), "header alone"),
    "a header that is a list": (lambda f: _header(f, b"[1, 2]"), "not a table"),
    "a header that is not JSON": (lambda f: _header(f, b'{"a": '), "not JSON"),
    "a header that is not text": (lambda f: _header(f, b'{"\xff": 1}'), "not JSON"),
    "an unknown type": (lambda f: _header(f, lambda h: h["b.c"].update(dtype="BF17")), "'BF17'"),
    "a shape of another size": (lambda f: _header(f, lambda h: h["b.c"].update(shape=[6])), "'b.c'"),
    "a negative size": (lambda f: _header(f, lambda h: h["b.c"].update(shape=[-5])), "'b.c'"),
    "a size that is no whole number": (lambda f: _header(f, lambda h: h["b.c"].update(shape=[5.0])), "'b.c'"),
    "no shape": (lambda f: _header(f, lambda h: h["b.c"].pop("shape")), "'b.c'"),
    "a tensor that is a number": (lambda f: _header(f, lambda h: h.update(x=3)), "'x'"),
    "offsets that overlap": (
        lambda f: _header(f, lambda h: h["b.c"].update(data_offsets=[0, 10])),
        "does not begin where",
    ),
    "offsets that end first": (lambda f: _header(f, lambda h: h["b.c"].update(data_offsets=[10, 0])), "'b.c'"),
    "bytes that belong to none": (lambda f: _header(f, lambda h: h.pop("b.c")), "its header says"),
    "metadata that are numbers": (lambda f: _header(f, lambda h: h.update(__metadata__={"x": 1})), "metadata"),
}


@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_a_file_that_the_library_refuses_is_refused(tmp_path: Path, fault: str) -> None:
    file = tmp_path / SINGLE
    save_file(TENSORS, file)
    read_header(file)
    harm, words = FILE_FAULTS[fault]
    harm(file)
    with pytest.raises((SafetensorError, OSError)), safe_open(file, framework="pt"):
        pass
    with pytest.raises(BadInput) as caught:
        read_folder(tmp_path)
    assert words in caught.value.problem
    assert SINGLE in caught.value.problem
    assert caught.value.place == str(tmp_path)


@settings(deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_exactly_if_the_library_refuses_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = tmp_path_factory.mktemp("damaged") / SINGLE
    save_file(TENSORS, file, {"format": "pt"})
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.sampled_from(b'{}[]",:0123456789abFt \xff'))
    file.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) - 1]))])
    ours = theirs = None
    with suppress(SafetensorError), safe_open(file, framework="pt") as opened:
        theirs = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    with suppress(BadInput):
        ours = {tensor.name: tensor.shape for tensor in read_header(file)}
    assert ours == theirs
    shutil.rmtree(file.parent)


FOLDER_FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda f: [each.unlink() for each in f.iterdir()], "model.safetensors is missing"),
    "pickled weights only": (
        lambda f: [(f / INDEX).unlink(), (f / "pytorch_model.bin").write_bytes(b"x")],
        "pickled weights are not read",
    ),
    "a missing shard": (lambda f: (f / "two.safetensors").unlink(), "two.safetensors is missing"),
    "a shard that is a folder": (
        lambda f: [(f / "two.safetensors").unlink(), (f / "two.safetensors").mkdir()],
        "two.safetensors is missing",
    ),
    "a shard elsewhere": (lambda f: _index(f, a="../one.safetensors"), "outside the folder"),
    "a shard by its path": (lambda f: _index(f, a=str(f / "one.safetensors")), "outside the folder"),
    "a shard that is no name": (lambda f: _index(f, a=".."), "outside the folder"),
    "a shard without a name": (lambda f: _index(f, a=""), "outside the folder"),
    "a tensor that no shard has": (lambda f: _index(f, a="one.safetensors", z="one.safetensors"), "'z'"),
    "a tensor in two shards": (
        lambda f: save_file({"a": TENSORS["a"], "n": TENSORS["n"]}, f / "one.safetensors"),
        "tensor 'n' is there twice, in one.safetensors and in two.safetensors",
    ),
    "an index that is cut off": (lambda f: _cut(f / INDEX, -3), "not JSON"),
    "an index without a map": (lambda f: (f / INDEX).write_text("{}"), "no weight_map"),
    "an index whose map is empty": (lambda f: _index(f), "no weight_map"),
    "an index that is a list": (lambda f: (f / INDEX).write_text("[]"), "no weight_map"),
    "an index of numbers": (lambda f: (f / INDEX).write_text('{"weight_map": {"a": 1}}'), "no weight_map"),
    "a shard that is cut off": (lambda f: _cut(f / "one.safetensors", -1), "one.safetensors cannot be read"),
}


@pytest.mark.parametrize("fault", FOLDER_FAULTS)
def test_a_folder_that_is_not_whole_is_refused(sharded: Path, fault: str) -> None:
    read_folder(sharded)
    harm, words = FOLDER_FAULTS[fault]
    harm(sharded)
    with pytest.raises(BadInput) as caught:
        read_folder(sharded)
    assert words in str(caught.value)
    assert caught.value.place == str(sharded)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        read_folder(tmp_path / "nowhere")


def test_reading_a_folder_imports_nothing_large(sharded: Path) -> None:
    code = (
        f"import sys; from pathlib import Path; import harness.streaming.engine as e; "
        f"from harness.streaming.shards import read_folder; read_folder(Path({str(sharded)!r})); "
        f"print(sorted({{'torch', 'transformers', 'peft', 'pandas', 'numpy'}} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
