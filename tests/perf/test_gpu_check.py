"""The check for GPUs on a CPU, with tiny sizes: it compares, times and writes, and says where there is no GPU."""

import json
from dataclasses import replace

import pytest
import torch

from harness.moe import choose
from harness.registry import DISPATCHES
from tests.perf import experts, gpu_check

TINY = [
    replace(cell, experts=4)
    for cell in gpu_check.cells("cpu", rows=24, sizes=((32, 64),))
    if cell.experts == 8 and cell.k == 2
]
WAYS = {"auto", *DISPATCHES.all(), "transformers eager", "transformers grouped_mm"}


def test_cells_are_those_that_are_asked_for():
    found = list(gpu_check.cells("cuda"))
    assert len(found) == len(set(found)) == 32
    assert {(cell.inputs, cell.hidden) for cell in found} == {(512, 2048), (2048, 2048)}
    assert {(cell.experts, cell.k) for cell in found} == {(8, 2), (8, 4), (32, 2), (32, 4)}
    assert {cell.dtype for cell in found} == {torch.float32, torch.bfloat16}
    assert {cell.device for cell in found} == {"cuda"}


def test_every_way_is_compared_and_timed_and_the_record_is_written(tmp_path):
    said = []
    record = gpu_check.check(TINY, rounds=2, seconds=60, say=said.append)
    assert len(TINY) == 4
    assert len(said) == 6
    assert record["left_out"] == []
    for each in record["parity"]:
        assert each["held"], each
        assert set(each["gaps"]) == WAYS - ({"sparse", "sparse_blocks"} if each["dtype"] == "bfloat16" else set())
    for each in record["times"]:
        assert set(each["milliseconds"]) | set(each["refused"]) == {*WAYS, "products alone"}
        assert each["choice"] in DISPATCHES.all()
        assert each["ratio"] > 0
    path = gpu_check.write(record, tmp_path / "perf", "NVIDIA H100 80GB HBM3")
    assert path.name == "nvidia-h100-80gb-hbm3.json"
    assert json.loads(path.read_text())["times"] == record["times"]
    assert json.loads(path.read_text())["card"] == "NVIDIA H100 80GB HBM3"
    lines = experts.table(record["times"])
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 2 + 4
    assert " - |" in lines[-1]


def test_a_way_that_is_too_far_is_not_held(monkeypatch):
    dense = DISPATCHES.get("dense")
    monkeypatch.setattr(DISPATCHES, "_known", DISPATCHES.all())
    DISPATCHES._known["index"] = replace(DISPATCHES.get("index"), run=lambda e, x, r: 1.001 * dense.run(e, x, r))
    found = experts.parity(TINY[0])
    assert not found["held"]
    assert found["gaps"]["index"] == pytest.approx(1e-3, rel=0.01)
    assert found["gaps"]["sorted"] <= found["bound"]
    assert gpu_check._words(found).startswith("NOT EQUAL")


def test_a_way_that_fails_is_named_and_the_others_go_on(monkeypatch):
    def broken(experts, x, routing):
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(DISPATCHES, "_known", DISPATCHES.all())
    DISPATCHES._known["index"] = replace(DISPATCHES.get("index"), run=broken)
    monkeypatch.setattr(choose, "_KNOWN", {})
    found = experts.parity(TINY[0])
    assert not found["held"]
    assert found["failed"]["index"] == "no kernel"
    assert found["gaps"]["sorted"] <= found["bound"]
    assert gpu_check._words(found).endswith("index failed: no kernel")


def test_what_time_is_short_for_is_named():
    record = gpu_check.check(TINY, rounds=1, seconds=-1, say=print)
    assert record["parity"] == record["times"] == []
    assert len(record["left_out"]) == 6


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(tmp_path, capsys):
    assert gpu_check.main(str(tmp_path)) == 2
    assert capsys.readouterr().err == "there is no GPU here: nothing was checked\n"
    assert list(tmp_path.iterdir()) == []
