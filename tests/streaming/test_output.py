"""Written folders: the files that transformers would write, whole or not there at all."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import LlamaConfig, LlamaForCausalLM

from harness.errors import BadInput
from harness.streaming.engine import write
from harness.streaming.output import ShardWriter, split_shards, whole
from harness.streaming.plan import Plan, Step
from harness.streaming.shards import INDEX, read_folder
from tests.streaming import folders


def _copies(folder: Path) -> Plan:
    return folders.plan("copy", [read_folder(folder)])


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 60))
def test_tensors_are_divided_into_shards_as_huggingface_hub_divides_them(sizes: list[int], shard_bytes: int) -> None:
    state = {f"t{i}": torch.zeros(size, dtype=torch.int8) for i, size in enumerate(sizes)}
    steps = [Step(name, "I8", tuple(tensor.shape), (), "copy") for name, tensor in state.items()]
    shards = split_shards(steps, shard_bytes, lambda step: step.size)
    theirs = split_torch_state_dict_into_shards(state, max_shard_size=shard_bytes).filename_to_tensors
    assert {name: [step.name for step in shard] for name, shard in shards.items()} == theirs


@pytest.mark.parametrize("shard_bytes", [5_000, 20_000, 5_000_000_000])
def test_files_names_and_index_are_those_of_save_pretrained(tmp_path: Path, shard_bytes: int) -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    model = LlamaForCausalLM(config)
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    model.save_pretrained(theirs, max_shard_size=shard_bytes)
    source = tmp_path / "source"
    folders.make(source, model.state_dict())
    read = read_folder(source)
    plan = Plan(tuple(folders.step("copy", name, [read]) for name in model.state_dict()))
    ours.mkdir()
    written = write(plan, ours, shard_bytes=shard_bytes)
    config.save_pretrained(ours)
    names = {file.name for file in theirs.iterdir() if "safetensors" in file.name}
    assert {file.name for file in ours.iterdir() if "safetensors" in file.name} == names
    assert {file.name for file in written.files} == names - {INDEX}
    if len(names) > 1:
        assert json.loads((ours / INDEX).read_text()) == json.loads((theirs / INDEX).read_text())
    for name, tensor in LlamaForCausalLM.from_pretrained(ours).state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])
    for file in written.files:
        with safe_open(file, framework="pt") as opened:
            assert opened.metadata() == {"format": "pt"}
        assert int.from_bytes(file.read_bytes()[:8], "little") % 8 == 0


def test_files_have_their_full_length_at_once(tmp_path: Path) -> None:
    source = folders.make(tmp_path / "source", {"a": torch.ones(1000), "b": torch.ones(10), "c": torch.tensor(1)})
    out = tmp_path / "out"
    out.mkdir()
    writer = ShardWriter(out, _copies(source.path), shard_bytes=4000)
    lengths = {file.name: file.stat().st_size for file in writer.files}
    assert len(lengths) == 3
    write(_copies(source.path), out, shard_bytes=4000)
    assert {file.name: file.stat().st_size for file in out.glob("*.safetensors")} == lengths
    assert read_folder(out).tensors.keys() == {"a", "b", "c"}


def test_a_lack_of_room_is_said_before_anything_is_computed(tmp_path: Path) -> None:
    source = folders.make(tmp_path / "source", {"a": torch.ones(100_000)})
    out = tmp_path / "out"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(BadInput, match=r"no room for a file of 400,\d\d\d bytes"), whole(out) as folder:
            write(_copies(source.path), folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "no parents"])
def test_a_whole_folder_gets_its_name(tmp_path: Path, there: str) -> None:
    out = tmp_path / "x" / "y" if there == "no parents" else tmp_path / "y"
    if there == "an empty folder":
        out.mkdir()
    umask = os.umask(0o027)
    try:
        with whole(out) as folder:
            (folder / "file").write_text("content")
            assert folder.parent == out.parent
            assert not out.exists() or there == "an empty folder"
    finally:
        os.umask(umask)
    assert (out / "file").read_text() == "content"
    assert stat.S_IMODE(out.stat().st_mode) == 0o750
    assert [each.name for each in out.parent.iterdir()] == ["y"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, BadInput])
def test_after_a_failure_nothing_is_left(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with whole(tmp_path / "out") as folder:
            (folder / "file").write_text("content")
            raise error("stop")

    with pytest.raises(error):
        fail()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("there", ["a full folder", "a file", "a file for a parent"])
def test_what_is_there_is_kept(tmp_path: Path, there: str) -> None:
    out = tmp_path / "out"
    if there == "a full folder":
        out.mkdir()
        (out / "file").write_text("mine")
    elif there == "a file":
        out.write_text("mine")
    else:
        out.write_text("mine")
        out = out / "x"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInput), whole(out):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_came_into_being_meanwhile_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    merging = whole(out)
    folder = merging.__enter__()
    (folder / "file").write_text("ours")
    out.mkdir()
    (out / "file").write_text("theirs")
    with pytest.raises(BadInput, match="not empty"):
        merging.__exit__(None, None, None)
    assert (out / "file").read_text() == "theirs"
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


_HANGS = """
import sys, time
from pathlib import Path
from harness.streaming.output import whole
with whole(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("x")
    print(folder.name, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_lives_is_not(tmp_path: Path) -> None:
    out, other = tmp_path / "a[b]*", tmp_path / "ab"
    command = [sys.executable, "-c", _HANGS]
    paths = (out, out, other)
    processes = [subprocess.Popen([*command, str(path)], stdout=subprocess.PIPE, text=True) for path in paths]
    names = [process.stdout.readline().strip() for process in processes]
    try:
        for process in (processes[0], processes[2]):
            process.send_signal(signal.SIGKILL)
            process.wait()
        with whole(out) as folder:
            (folder / "file").write_text("x")
        assert {each.name for each in tmp_path.iterdir()} == {"a[b]*", names[1], names[2]}
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()
    with whole(other):
        pass
    assert {each.name for each in tmp_path.iterdir()} == {"a[b]*", "ab", names[1]}
