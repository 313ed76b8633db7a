"""Steps of a merge, tensors for them, and what mergekit 0.1.5 makes of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from hypothesis import strategies as st
from mergekit.merge_methods.base import TensorGroup
from mergekit.merge_methods.registry import get
from torch import Tensor

from harness.streaming.draws import key, uniform
from harness.streaming.plan import Step, TensorAt
from harness.streaming.rules import RULES

SHAPES = st.sampled_from([(), (1,), (7,), (40,), (4, 6), (5, 1), (3, 5, 2), (2, 3, 2, 2)])
SEEDS = st.integers(0, 2**32 - 1)
KINDS = st.sampled_from(["random", "grid", "small", "tiny"])
WEIGHT = st.sampled_from([0.0, 0.25, 0.5, 1.0, -0.5, 1.75, 2.0**-30])


def step_of(
    rule: str,
    sources: int,
    shape: Sequence[int] = (4, 6),
    *,
    base: int | None = 0,
    name: str = "w",
    seed: int = 0,
    draws: Sequence[str] | None = None,
    **given: Any,
) -> Step:
    """A step whose parameters have these values or their defaults; ``lambda_`` is lambda, a list has one each."""
    given = {name.rstrip("_"): value for name, value in given.items()}
    base = None if RULES[rule].base == "ignored" else base
    shared: dict[str, Any] = {}
    each: dict[str, tuple[Any, ...]] = {}
    for parameter in RULES[rule].parameters:
        value = given.pop(parameter.name, parameter.default)
        if parameter.scope == "shared":
            shared[parameter.name] = value
            continue
        values = list(value) if isinstance(value, (list, tuple)) else [value] * sources
        if parameter.scope == "fine_tune" and base is not None:
            values[base] = None
        each[parameter.name] = tuple(values)
    assert not given, given
    at = TensorAt(Path("model.safetensors"), name, "F32", tuple(shape), 0, 0)
    draws = tuple(draws or (f"model {i}" for i in range(sources)))
    return Step(name, "F32", tuple(shape), (at,) * sources, rule, base, shared, each, draws, seed)


def models(
    sources: int, shape: Sequence[int], seed: int = 0, kind: str = "random", dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """A base and fine-tunes of it.

    Of the kind "grid" all are multiples of 1/4, with many equal magnitudes; of "small" and "tiny" the base is 0, and of
    "tiny" all is about where numbers are taken for 0.
    """
    of_base, of_change = {"grid": (1.0, 1.0), "small": (0.0, 3e-4), "tiny": (0.0, 1e-8)}.get(kind, (1.0, 0.1))
    generator = torch.Generator().manual_seed(seed)

    def draw(scale: float) -> Tensor:
        tensor = torch.randn(tuple(shape), generator=generator, dtype=torch.float64) * scale
        return ((tensor * 4).round() / 4 if kind == "grid" else tensor).to(dtype)

    base = draw(of_base)
    return [base, *(base + draw(of_change) for _ in range(sources - 1))]


def mergekit(step: Step, tensors: Sequence[Tensor], *, settle: bool = True) -> Tensor:
    """What mergekit makes of the tensors; if ``settle``, with its choices among equals and its draws made ours."""
    parameters: dict[str, Any] = dict(step.shared)
    scopes = {parameter.name: parameter.scope for parameter in RULES[step.rule].parameters}
    for name, values in step.each.items():
        used = [i for i in range(len(values)) if i != step.base or scopes[name] == "source"]
        parameters[name] = {i: values[i] for i in used}
    group = TensorGroup.from_tensors(list(tensors), base_index=step.base, name=step.name)
    with settled(step) if settle else nullcontext():
        return get(step.rule)([group], parameters=parameters)[0]


def assert_equal(found: Tensor, expected: Tensor, message: object = "") -> None:
    """Bit for bit, but for the sign of 0."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected), f"{message}: {found} is not {expected}"


def assert_near(found: Tensor, expected: Tensor, tensors: Sequence[Tensor], ulps: float) -> None:
    """To so many roundings of the largest number that takes part."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    largest = max(float(tensor.abs().max()) for tensor in [*tensors, expected])
    assert float((found - expected).abs().max()) <= ulps * torch.finfo(found.dtype).eps * largest


@contextmanager
def settled(step: Step) -> Iterator[None]:
    """Sorts are stable, and Bernoulli draws are those of the step's sources, in their order."""
    densities = step.each.get("density", ())
    drawing = iter(
        [i for i, d in enumerate(densities) if d is not None and d < 1 and (d > 0 or step.rule.startswith("dare"))]
    )

    def bernoulli(chances: Tensor) -> Tensor:
        numbers = uniform(key(step.seed, step.draws[next(drawing)], step.name), 0, chances.numel())
        return (torch.from_numpy(numbers).view(chances.shape) < chances).to(chances.dtype)

    def topk(values: Tensor, k: int, largest: bool) -> tuple[Tensor, Tensor]:
        found = sort(values, descending=largest)
        return found.values[:k], found.indices[:k]

    sort = partial(torch.sort, stable=True)
    with (
        mock.patch("torch.argsort", partial(torch.argsort, stable=True)),
        mock.patch("torch.sort", sort),
        mock.patch("torch.topk", topk),
        mock.patch("torch.bernoulli", bernoulli),
    ):
        yield
