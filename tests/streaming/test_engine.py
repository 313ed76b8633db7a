"""Whole plans: what is copied and what is merged, on any number of threads, stopped by errors and interruptions."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import BadInput
from harness.streaming import kernels
from harness.streaming.engine import write
from harness.streaming.output import whole
from harness.streaming.plan import Adapted, Plan, Step
from harness.streaming.reading import TORCH
from tests.streaming import folders

RULES = ("copy", "linear", "task_arithmetic", "ties", "dare_ties", "breadcrumbs_ties", "nearswap")


@pytest.mark.parametrize("compiled", [True, False])
def test_copies_of_the_same_type_are_the_same_bytes(tmp_path: Path, compiled: bool, monkeypatch) -> None:
    if not compiled:
        monkeypatch.setattr(kernels, "library", lambda: None)
    torch.manual_seed(0)
    numbers = {name: torch.randint(0, 2, (3, 50_001)).to(kind) for name, kind in TORCH.items()}
    numbers["NaN"] = torch.full((5,), torch.nan)
    numbers["F8"] = torch.randn(9).to(torch.float8_e4m3fn)
    source = folders.make(tmp_path / "source", numbers)
    (tmp_path / "out").mkdir()
    done: list[int] = []
    written = write(folders.plan("copy", [source]), tmp_path / "out", progress=done.append, range_elements=65536)
    copied = folders.loaded(tmp_path / "out")
    assert copied.keys() == numbers.keys()
    for name, tensor in numbers.items():
        assert copied[name].dtype == tensor.dtype
        assert torch.equal(copied[name].view(torch.uint8), tensor.view(torch.uint8))
    total = sum(tensor.nbytes for tensor in numbers.values())
    assert (written.bytes_read, written.bytes_written, sum(done)) == (total, total, total)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("target", ["F64", "F32", "F16", "BF16", "I32"])
def test_copies_in_another_type_are_cast_as_by_torch(tmp_path: Path, target: str, compiled: bool, monkeypatch) -> None:
    if not compiled:
        monkeypatch.setattr(kernels, "library", lambda: None)
    torch.manual_seed(0)
    numbers = {name: torch.randn(70_001).mul(50).to(kind) for name, kind in TORCH.items()}
    source = folders.make(tmp_path / "source", numbers)
    (tmp_path / "out").mkdir()
    write(folders.plan("copy", [source], dtype=target), tmp_path / "out")
    copied = folders.loaded(tmp_path / "out")
    for name, tensor in numbers.items():
        assert torch.equal(copied[name], tensor.to(TORCH[target])), name


@settings(deadline=None, max_examples=15)
@given(
    rule=st.sampled_from(RULES),
    sizes=st.lists(st.integers(0, 200_000), min_size=1, max_size=4),
    threads=st.integers(1, 5),
    range_elements=st.integers(1, 300_000),
    shard_bytes=st.integers(1, 500_000),
)
def test_neither_threads_nor_ranges_nor_shards_change_the_result(
    tmp_path_factory: pytest.TempPathFactory,
    rule: str,
    sizes: list[int],
    threads: int,
    range_elements: int,
    shard_bytes: int,
) -> None:
    folder = tmp_path_factory.mktemp("ranges")
    torch.manual_seed(sum(sizes))
    models = [{f"t{i}": torch.randn(size).mul(8).round().div(64) for i, size in enumerate(sizes)} for _ in range(3)]
    models = models[: {"copy": 1, "nearswap": 2}.get(rule, 3)]
    read = [folders.make(folder / str(i), tensors) for i, tensors in enumerate(models)]
    density = {"density": 0.3, "rescale": True} if rule in ("ties", "dare_ties", "breadcrumbs_ties") else {}
    plan = folders.plan(rule, read, dtype="BF16", **density)
    results = []
    for name, how in (("one", (1, 1 << 30, 1 << 30)), ("many", (threads, range_elements, shard_bytes))):
        (folder / name).mkdir()
        write(plan, folder / name, threads=how[0], range_elements=how[1], shard_bytes=how[2])
        results.append(folders.loaded(folder / name))
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


@pytest.mark.parametrize("transposed", [False, True])
def test_an_adapter_adds_its_product(tmp_path: Path, transposed: bool) -> None:
    torch.manual_seed(0)
    weight, a, b = torch.randn(30, 20), torch.randn(4, 20), torch.randn(30, 4)
    stored = weight.T.contiguous() if transposed else weight
    read = folders.make(tmp_path / "in", {"w": stored.bfloat16(), "a": a.half(), "b": b}).tensors
    source = Adapted(read["w"], read["a"], read["b"], 0.5, transposed)
    plan = Plan((Step("w", "F32", tuple(stored.shape), (source,), "copy"),))
    (tmp_path / "out").mkdir()
    written = write(plan, tmp_path / "out")
    merged = folders.loaded(tmp_path / "out")["w"]
    expected = weight.bfloat16().double() + 0.5 * b.double() @ a.half().double()
    torch.testing.assert_close(merged.double(), expected.T if transposed else expected, rtol=1e-5, atol=1e-5)
    assert written.bytes_read == sum(tensor.nbytes for tensor in read.values())


def test_tensors_of_other_shapes_are_refused(tmp_path: Path) -> None:
    read = [folders.make(tmp_path / str(i), {"x": torch.ones(4 + i, 2)}) for i in range(2)]
    with pytest.raises(BadInput, match=r"tensor 'x' of model.safetensors has the shape \[5, 2\]") as caught:
        write(folders.plan("linear", read), tmp_path)
    assert caught.value.place == str(tmp_path / "1")


def test_a_source_that_is_gone_is_named(tmp_path: Path) -> None:
    read = [folders.make(tmp_path / str(i), {"x": torch.ones(4)}) for i in range(2)]
    (tmp_path / "1" / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="No such file"), whole(tmp_path / "out") as folder:
        write(folders.plan("linear", read), folder)
    assert not (tmp_path / "out").exists()


_INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from harness.streaming.engine import write
from harness.streaming.output import whole
from tests.streaming.folders import plan
from harness.streaming.shards import read_folder
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background is started without
read = [read_folder(Path(path)) for path in sys.argv[3:]]
left = int(sys.argv[2])
def progress(nbytes):
    global left
    if left:
        os.kill(os.getpid(), signal.SIGINT)
        left -= 1
with whole(Path(sys.argv[1])) as folder:
    write(plan("linear", read), folder, progress=progress, range_elements=65536)
"""


@pytest.mark.parametrize("times", [1, 100])
def test_an_interrupted_merge_ends_and_leaves_nothing(tmp_path: Path, times: int) -> None:
    """An impatient user may also interrupt the cleaning up, which the next merge does."""
    for i in range(2):
        folders.make(tmp_path / str(i), {f"x{k}": torch.ones(200_000) for k in range(40)})
    command = [sys.executable, "-c", _INTERRUPTED, str(tmp_path / "out"), str(times)]
    command += [str(tmp_path / "0"), str(tmp_path / "1")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGINT or "KeyboardInterrupt" in done.stderr
    assert done.returncode != 0
    left = sorted(path.name for path in tmp_path.iterdir() if times == 1 or not path.name.startswith(".out.merging"))
    assert left == ["0", "1"]
