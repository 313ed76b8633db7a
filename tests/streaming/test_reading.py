"""Without compiled functions, and for what has none, whole tensors give the same."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from harness.errors import BadInput
from harness.streaming import kernels
from harness.streaming.definitions import combine
from harness.streaming.engine import write
from harness.streaming.plan import Adapted, Plan, Step
from harness.streaming.rules import RULES
from tests.streaming import folders

MODELS = {"passthrough": 1, "slerp": 2, "nearswap": 2, "arcee_fusion": 2}
VALUES = {"density": 0.3, "rescale": True, "normalize": True, "t": 0.01, "scale": 0.7, "gamma": 0.1, "epsilon": 0.1}
SHAPES = {"matrix": (300, 401), "vector": (77,), "one": (1,), "scalar": (), "none": (0, 3)}


def _read(folder: Path, rule: str, kind: torch.dtype):
    """Models of a rule; nuslerp and model_stock have a base and two others."""
    torch.manual_seed(0)
    base = {name: 0.05 * torch.randn(shape) for name, shape in SHAPES.items()}
    models = [base] + [
        {
            name: value + 0.005 * torch.randn(value.shape) * (torch.rand(value.shape) < 0.3)
            for name, value in base.items()
        }
        for _ in range(2)
    ]
    models = models[: MODELS.get(rule, 3)]
    return [
        folders.make(folder / str(i), {name: tensor.to(kind) for name, tensor in model.items()})
        for i, model in enumerate(models)
    ]


def _plan(rule: str, read, **more: object) -> Plan:
    known = {parameter.name for parameter in RULES[rule].parameters}
    return folders.plan(rule, read, **{key: value for key, value in VALUES.items() if key in known}, **more)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_compiled_functions_give_what_the_definitions_give(tmp_path: Path, rule: str, monkeypatch) -> None:
    plan = _plan(rule, _read(tmp_path, rule, torch.bfloat16), dtype="F32")
    results = []
    for name in ("compiled", "whole"):
        if name == "whole":
            monkeypatch.setattr(kernels, "library", lambda: None)
        (tmp_path / name).mkdir()
        write(plan, tmp_path / name)
        results.append(folders.loaded(tmp_path / name))
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], rtol=3e-7, atol=2e-8)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_tensors_of_64_bits_are_merged_in_64(tmp_path: Path, rule: str) -> None:
    read = _read(tmp_path, rule, torch.float64)
    plan = _plan(rule, read)
    (tmp_path / "out").mkdir()
    write(plan, tmp_path / "out", memory=1)
    sources = [folders.loaded(folder.path) for folder in read]
    for step in plan.steps:
        expected = combine(step, [tensors[step.name] for tensors in sources])
        merged = folders.loaded(tmp_path / "out")[step.name]
        assert merged.dtype == torch.float64
        assert torch.equal(merged, expected)


def test_adapted_sources_are_merged_as_if_they_had_been_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weight, other, a, b = torch.randn(30, 20), torch.randn(30, 20), torch.randn(4, 20), torch.randn(30, 4)
    stored = {"w": weight, "other": other, "a": a, "b": b, "saved": weight + 2 * b @ a}
    read = folders.make(tmp_path / "in", stored).tensors
    adapted = Adapted(read["w"], read["a"], read["b"], 2.0)
    how = {"shared": {"normalize": True}, "each": {"weight": (0.3, 0.9)}}
    steps = [
        Step(name, "F32", (30, 20), (source, read["other"]), "linear", **how)
        for name, source in (("ours", adapted), ("plain", read["saved"]))
    ]
    (tmp_path / "out").mkdir()
    write(Plan(tuple(steps)), tmp_path / "out")
    merged = folders.loaded(tmp_path / "out")
    torch.testing.assert_close(merged["ours"], merged["plain"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rule", ["sce", "linear"])
def test_whole_tensors_with_nan_or_infinity_are_refused(tmp_path: Path, rule: str, monkeypatch) -> None:
    monkeypatch.setattr(kernels, "library", lambda: None)
    read = [folders.make(tmp_path / str(i), {"x": torch.tensor([1.0, math.inf if i else 2.0])}) for i in range(3)]
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match=r"tensor 'x' of .* has values that are NaN or infinite") as caught:
        write(_plan(rule, read), tmp_path / "out")
    assert caught.value.place in (str(tmp_path / "1"), str(tmp_path / "2"))
