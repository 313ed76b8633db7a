"""The compiled functions against torch's conversions, sorts and float64."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import BadInput
from harness.streaming import kernels
from harness.streaming.engine import write
from harness.streaming.jobs import Compiled
from harness.streaming.kernels import Place, Sources
from harness.streaming.plan import Plan
from harness.streaming.scheduling import Job, Threads
from tests.streaming import folders, oracle

pytestmark = pytest.mark.skipif(not kernels.available(), reason="there is no compiler")

PATTERNS = torch.arange(65536, dtype=torch.int32).to(torch.uint16)
KINDS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def _merged(
    folder: Path, rule: str, sources: list[dict[str, torch.Tensor]], **values: object
) -> dict[str, torch.Tensor]:
    """By the engine, into ``folder/out``."""
    read = [folders.make(folder / str(i), tensors) for i, tensors in enumerate(sources)]
    (folder / "out").mkdir()
    write(folders.plan(rule, read, **values), folder / "out", threads=2)
    return folders.loaded(folder / "out")


@pytest.mark.parametrize("kind", ["BF16", "F16"])
def test_every_16_bit_number_becomes_the_same_float_as_in_torch(tmp_path: Path, kind: str) -> None:
    numbers = PATTERNS.view(KINDS[kind])
    ours = _merged(tmp_path, "copy", [{"x": numbers}], dtype="F32")["x"]
    assert torch.equal(ours.view(torch.int32)[~ours.isnan()], numbers.float().view(torch.int32)[~ours.isnan()])
    assert torch.equal(ours.isnan(), numbers.isnan())


@pytest.mark.parametrize("kind", ["BF16", "F16"])
def test_floats_round_to_16_bits_as_in_torch(tmp_path: Path, kind: str) -> None:
    """Every number of 16 bits, what lies half-way to the next, and what lies next to that on both sides."""
    exact = PATTERNS.view(KINDS[kind]).float()
    half = (exact.double() + exact.roll(-1).double()).div(2).float()
    floats = torch.cat([exact, half, *(half.nextafter(torch.tensor(end)) for end in (math.inf, -math.inf))])
    random = torch.randint(-(2**31), 2**31, (200_000,), generator=torch.Generator().manual_seed(0), dtype=torch.int64)
    floats = torch.cat([floats, random.to(torch.int32).view(torch.float32), torch.tensor([65519.996, -65519.996])])
    floats = floats[~floats.to(KINDS[kind]).isinf() | floats.isinf()]
    ours, theirs = _merged(tmp_path, "copy", [{"x": floats}], dtype=kind)["x"], floats.to(KINDS[kind])
    assert torch.equal(ours.isnan(), theirs.isnan())
    assert torch.equal(ours.view(torch.int16)[~ours.isnan()], theirs.view(torch.int16)[~ours.isnan()])


@pytest.mark.parametrize("differences", [False, True])
def test_inner_products_are_those_of_float64(tmp_path: Path, differences: bool) -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(200_003).to(kind) for kind in KINDS.values()]
    read = [folders.make(tmp_path / str(i), {"x": tensor}) for i, tensor in enumerate(tensors)]
    step = folders.step("task_arithmetic", "x", read, base=1)
    sources = Sources("x", step.sources)
    found = []

    def phases():
        compiled = Compiled(step, sources, Place(), 65536, lambda first, last: None)
        found.append((yield from compiled.gram(differences)))

    Threads(2, 0).run(iter([Job(phases())]))
    sources.close()
    wide = torch.stack([tensor.float() - (tensors[1].float() if differences else 0) for tensor in tensors]).double()
    np.testing.assert_allclose(found[0], (wide @ wide.T).numpy(), rtol=1e-12, atol=1e-9)


@st.composite
def _vectors(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """A base and what was trained from it: few values, so that many magnitudes are equal, or many of all sizes."""
    size = draw(st.integers(1, 400))
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    kind = draw(st.sampled_from(list(KINDS.values())))
    base = torch.randn(size, generator=generator).mul(0.05).to(kind)
    if draw(st.booleans()):
        levels = torch.tensor(draw(st.lists(st.sampled_from([0.0, 0.5, -0.5, 1.0, 1e-3, -2.0]), min_size=1)))
        base = torch.zeros_like(base)
        change = levels[torch.randint(len(levels), (size,), generator=generator)]
    else:
        change = torch.randn(size, generator=generator) * 10.0 ** draw(st.integers(-30, 2))
        change[torch.rand(size, generator=generator) < draw(st.sampled_from([0.0, 0.7]))] = 0
    return base, (base.float() + change).to(kind)


@settings(deadline=None)
@given(
    _vectors(),
    st.sampled_from(["ties", "breadcrumbs", "breadcrumbs_ties", "dare_linear"]),
    st.one_of(st.floats(0, 1.1), st.sampled_from([0.0, 0.25, 0.5, 1.0])),
    st.sampled_from([0.0, 0.01, 0.25, 0.9]),
    st.booleans(),
)
def test_exactly_the_entries_that_a_stable_sort_chooses_are_kept(
    tmp_path_factory: pytest.TempPathFactory,
    vectors: tuple[torch.Tensor, torch.Tensor],
    rule: str,
    density: float,
    gamma: float,
    rescale: bool,
) -> None:
    folder = tmp_path_factory.mktemp("kept")
    values = {"gamma": gamma} if "breadcrumbs" in rule else {}
    read = [folders.make(folder / str(i), {"x": tensor}) for i, tensor in enumerate(vectors)]
    plan = folders.plan(rule, read, density=density, weight=1.0, rescale=rescale, dtype="F32", **values)
    (folder / "out").mkdir()
    write(plan, folder / "out", threads=1)
    expected = oracle.merged(plan.steps[0], vectors)
    assert torch.equal(folders.loaded(folder / "out")["x"], expected)


RULES = {
    "linear": {"weight": [0.3, 0.2, -0.1, 0.7]},
    "passthrough": {"scale": 0.37},
    "nearswap": {"t": 1e-3},
    "task_arithmetic": {"weight": [0, 0.3, -0.5, 0.4], "normalize": True, "lambda_": 1.3},
    "ties": {"weight": [0, 0.3, 0.5, 0.4], "density": [1, 0.2, 0.6, 1.0], "rescale": True},
    "dare_linear": {"density": [1, 0.2, 0.7, 0.0], "lambda_": 0.5},
    "dare_ties": {"weight": [0, 0.3, -0.5, 0.4], "density": 0.4, "normalize": True},
    "breadcrumbs": {"density": 0.4, "gamma": [0, 0.1, 0.3, 0.0], "rescale": True},
    "breadcrumbs_ties": {"density": 0.05, "gamma": 0.05},
}
SHAPES = {"large": (3, 23_001), "small": (7, 13), "one": (1,), "scalar": (), "none": (0, 3)}


def _changed(tensor: torch.Tensor) -> torch.Tensor:
    """As by training that leaves most weights as they are."""
    return tensor + 0.005 * torch.randn(tensor.shape) * (torch.rand(tensor.shape) < 0.3)


@pytest.fixture(scope="module")
def tuned() -> dict[str, list[dict[str, torch.Tensor]]]:
    """A base and three fine-tunes that share most weights with it, by type."""
    torch.manual_seed(0)
    base = {name: 0.05 * torch.randn(shape) for name, shape in SHAPES.items()}
    found = {}
    for name, kind in KINDS.items():
        models = [{key: value.to(kind) for key, value in base.items()}]
        for _ in range(3):
            models.append({key: _changed(value.float()).to(kind) for key, value in models[0].items()})
        found[name] = models
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", RULES)
def test_rules_are_bit_for_bit_what_whole_tensors_give(tmp_path: Path, tuned, rule: str, kind: str) -> None:
    models = tuned[kind][: {"passthrough": 1, "nearswap": 2}.get(rule, 4)]
    if rule == "linear":
        models = [*models[:3], {name: tensor.float() for name, tensor in models[3].items()}]  # of another type
    read = [folders.make(tmp_path / str(i), tensors) for i, tensors in enumerate(models)]
    base = min(2, len(models) - 1) if rule != "nearswap" else 1
    given = RULES[rule].items()
    values = {key: np.roll(value, base).tolist() if isinstance(value, list) else value for key, value in given}
    plan = folders.plan(rule, read, base=base, **values)
    for range_elements, threads in ((65536, 3), (1 << 21, 1)):
        out = tmp_path / f"out-{threads}"
        out.mkdir()
        write(plan, out, threads=threads, range_elements=range_elements)
        ours = folders.loaded(out)
        for step in plan.steps:
            expected = oracle.merged(step, [model[step.name] for model in models]).to(KINDS[kind])
            assert torch.equal(ours[step.name], expected), step.name


@pytest.mark.parametrize("rule", ["linear", "passthrough", "ties", "dare_ties", "nearswap"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_are_refused_with_their_place(tmp_path: Path, rule: str, value: float) -> None:
    models = [{"x": torch.zeros(100_000)} for _ in range({"passthrough": 1, "nearswap": 2}.get(rule, 3))]
    models[-1]["x"][70_001] = value
    with pytest.raises(BadInput) as caught:
        _merged(tmp_path, rule, models)
    assert "'x'" in caught.value.problem
    assert caught.value.place == str(tmp_path / str(len(models) - 1))


def test_a_result_that_its_type_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="too large for the type"):
        _merged(tmp_path, "passthrough", [{"x": torch.full((10,), 40_000.0)}], scale=2.0, dtype="F16")


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(("kind", "value"), [("F16", 65520.0), ("F16", -1e38), ("BF16", 3.4e38)])
def test_a_copy_that_its_type_cannot_hold_is_refused(
    tmp_path: Path, kind: str, value: float, compiled: bool, monkeypatch
) -> None:
    """Beside infinity too, which stays as it is."""
    if not compiled:
        monkeypatch.setattr(kernels, "library", lambda: None)
    numbers = torch.tensor([1.0, math.inf, value])
    with pytest.raises(BadInput, match="too large for the type"):
        _merged(tmp_path, "copy", [{"x": numbers}], dtype=kind)


def test_a_file_that_is_cut_off_meanwhile_is_named(tmp_path: Path) -> None:
    read = [folders.make(tmp_path / str(i), {"x": torch.ones(100_000)}) for i in range(2)]
    plan = folders.plan("linear", read)
    os.truncate(tmp_path / "1" / "model.safetensors", 200_000)
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match=r"model.safetensors ends within tensor 'x'") as caught:
        write(Plan(plan.steps), tmp_path / "out")
    assert caught.value.place == str(tmp_path / "1")
