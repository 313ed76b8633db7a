"""Merges that go wrong: one line, inputs untouched, nothing half-written; and merges that are killed, begun anew."""

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from harness.errors import BadInput
from tests.recipes.families import FINE_TUNES, write_models
from tests.recipes.peers import ours, weights

RECIPE = {
    "merge_method": "ties",
    "base_model": "base",
    "models": [{"model": name, "parameters": {"weight": 0.4, "density": 0.5}} for name in FINE_TUNES],
}
COMMAND = [sys.executable, "-m", "harness.cli", "merge", "recipe.yml", "out"]


@pytest.fixture
def folder(tmp_path):
    """A recipe beside tiny models in several files."""
    write_models(tmp_path, shards=True)
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(RECIPE))
    return tmp_path


def state(folder):
    """What every file holds, by its digest."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def shard(folder, name="math"):
    return sorted((folder / name).glob("model-*.safetensors"))[1]


def cut_off(folder):
    path = shard(folder)
    path.write_bytes(path.read_bytes()[:-100])


def emptied(folder):
    shard(folder).write_bytes(b"")


def flipped_header(folder):
    path = shard(folder)
    content = bytearray(path.read_bytes())
    content[9] ^= 0x40
    path.write_bytes(content)


def flipped_to_infinity(folder):
    path = shard(folder)
    tensors = load_file(path)
    name = sorted(tensors)[0]
    tensors[name].view(torch.int32).flatten()[3] |= 0x7F800000
    save_file(tensors, path, metadata={"format": "pt"})


def another_shape(folder):
    path = shard(folder)
    tensors = load_file(path)
    name = max(tensors, key=lambda each: tensors[each].numel())
    tensors[name] = tensors[name][:-1].clone()
    save_file(tensors, path, metadata={"format": "pt"})


def lacks_a_tensor(folder):
    path = shard(folder)
    tensors = load_file(path)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, path, metadata={"format": "pt"})


def lacks_a_shard(folder):
    shard(folder).unlink()


def leads_out_of_the_folder(folder):
    index = folder / "math/model.safetensors.index.json"
    said = json.loads(index.read_text())
    shutil.copy(shard(folder), folder / "elsewhere.safetensors")
    name = shard(folder).name
    said["weight_map"] = {key: "../elsewhere.safetensors" if at == name else at
                          for key, at in said["weight_map"].items()}  # fmt: skip
    index.write_text(json.dumps(said))


def config_is_no_json(folder):
    (folder / "math/config.json").write_text("{")


def config_is_gone(folder):
    (folder / "base/config.json").unlink()


def pickled(folder):
    for path in (folder / "math").glob("model*"):
        path.unlink()
    torch.save({}, folder / "math/pytorch_model.bin")


def of_another_kind(folder):
    shutil.rmtree(folder / "math")
    write_models(folder / "others", "gpt2")
    shutil.move(folder / "others/math", folder / "math")
    shutil.rmtree(folder / "others")


def says_what_has_no_meaning(folder):
    models = [{"model": "math", "parameters": {"weight": 0.4, "density": -0.5}}]
    (folder / "recipe.yml").write_text(yaml.safe_dump({**RECIPE, "merge_method": "dare_ties", "models": models}))


FAULTS = {
    cut_off: r"math: .*model-\S+ cannot be read|math: model-\S+ has .* bytes",
    emptied: r"math: model-\S+ cannot be read",
    flipped_header: r"math: model-\S+ cannot be read",
    flipped_to_infinity: r"math.*(finite|NaN|inf)",
    another_shape: r"recipe\.yml:\d+: the tensor '\S+' has the shape",
    lacks_a_tensor: r"math: no shard has a tensor that",
    lacks_a_shard: r"math: model-\S+ is missing",
    leads_out_of_the_folder: r"math: shard '\.\./elsewhere\.safetensors' lies outside the folder",
    config_is_no_json: r"math: config\.json is not JSON",
    config_is_gone: r"base: config\.json is missing",
    pickled: r"math: model\.safetensors is missing; pickled weights are not read",
    says_what_has_no_meaning: r"recipe\.yml:\d+: for the tensor '\S+' density -0\.5 is no probability",
    of_another_kind: r"recipe\.yml:\d+: 'math' is a model of type 'gpt2'",
}


@pytest.mark.parametrize(("spoil", "line"), FAULTS.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_a_fault_is_one_line_and_leaves_nothing(spoil, line, folder):
    spoil(folder)
    before = state(folder)
    with pytest.raises(BadInput, match=line) as fault:
        ours(folder / "recipe.yml", folder / "out")
    assert "\n" not in str(fault.value)
    assert state(folder) == before
    assert not (folder / "out").exists()
    assert not list(folder.glob(".out*"))


def test_the_place_to_write_to_is_free_or_refused(folder):
    for made in ("file", "full"):
        out = folder / made
        if made == "file":
            out.write_text("")
        else:
            out.mkdir()
            (out / "kept.txt").write_text("")
        with pytest.raises(BadInput, match=f"{made}: (this is a file|the folder exists and is not empty)"):
            ours(folder / "recipe.yml", out)
    with pytest.raises(BadInput, match="x: File name too long"):
        ours(folder / "recipe.yml", folder / ("x" * 300))
    (folder / "empty").mkdir()
    ours(folder / "recipe.yml", folder / "empty")
    assert weights(folder / "empty")


def test_too_little_room_is_one_line(folder):
    """As a full disk is said: no file may be longer than a few bytes."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    before = state(folder)
    done = subprocess.run(COMMAND, cwd=folder, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("stockpot: ")
    assert done.stderr.count("\n") == 1
    assert "no room" in done.stderr
    assert state(folder) == before
    assert not list(folder.glob(".out*"))


def started(folder):
    """The merge in a process of its own, which has all modules already."""
    pid = os.fork()
    if pid == 0:
        code = 1
        torch.set_num_threads(1)  # OpenMP's threads are not in a process that was forked
        try:
            ours(folder / "recipe.yml", folder / "out")
            code = 0
        finally:
            os._exit(code)
    return pid


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_merge_killed_at_any_moment_leaves_nothing_that_passes_for_whole(tmp_path):
    """Twenty times, each at a moment of its own; then the same merge is run to its end."""
    write_models(tmp_path, hidden_size=192, intermediate_size=512, num_hidden_layers=4)
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(RECIPE))
    before = state(tmp_path)
    ours(tmp_path / "recipe.yml", tmp_path / "expected")
    expected = weights(tmp_path / "expected")
    shutil.rmtree(tmp_path / "expected")
    start = time.perf_counter()
    assert ended(started(tmp_path)) == 0
    longest = time.perf_counter() - start
    chance, stopped = random.Random(0), 0
    for _ in range(20):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        pid = started(tmp_path)
        time.sleep(chance.uniform(0, 1) * longest)
        os.kill(pid, signal.SIGKILL)
        stopped += ended(pid) == -signal.SIGKILL
        if (tmp_path / "out").exists():
            assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(tmp_path / "out").items())
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert ended(started(tmp_path)) == 0
    found = weights(tmp_path / "out")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    shutil.rmtree(tmp_path / "out")
    assert state(tmp_path) == before
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".out")]
    assert stopped
