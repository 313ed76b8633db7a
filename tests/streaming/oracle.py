"""What the compiled rules compute, written plainly: sorts and whole tensors, in float32 where its rounding counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.streaming.plan import Step
from tests.streaming.draws import uniform

ELECTING = ("ties", "dare_ties", "breadcrumbs_ties")


def merged(step: Step, tensors: Sequence[Tensor]) -> Tensor:
    """The result in float32, of sources of any type of floats."""
    tensors = [tensor.float() for tensor in tensors]
    if step.rule == "linear":
        total = torch.zeros_like(tensors[0])
        weights = torch.tensor(step.each["weight"])
        for tensor, weight in zip(tensors, weights, strict=True):
            total = (total.double() + tensor.double() * weight.double()).float()  # rounded once
        return total / in_turn(list(weights)) if step.shared["normalize"] else total
    if step.rule == "passthrough":
        return tensors[0] * (step.each["scale"][0] or 1.0)
    if step.rule == "nearswap":
        a, b = tensors[step.base], tensors[1 - step.base]
        weight = (step.shared["t"] / (a - b).abs().clamp(min=1e-6)).clamp(min=0, max=1)
        return weight * b + (1 - weight) * a
    return _task_vectors(step, tensors)


def in_turn(values: Sequence[Tensor]) -> Tensor:
    """A sum in float32, one after the other."""
    total = torch.zeros_like(values[0])
    for value in values:
        total = total + value
    return total


def _task_vectors(step: Step, tensors: Sequence[Tensor]) -> Tensor:
    base = tensors[step.base]
    tuned = [i for i in range(len(tensors)) if i != step.base]
    weights = [torch.tensor(step.each["weight"][i]) for i in tuned]
    vectors = []
    for i, weight in zip(tuned, weights, strict=True):
        vector = tensors[i] - base
        kept = keep(step, i, vector)
        sparse = torch.where(kept, vector, 0.0)
        before, after = vector.double().abs().sum(), sparse.double().abs().sum()
        if step.shared["rescale"] and not kept.all() and before >= 1e-7 and after >= 1e-7:
            sparse = sparse * (before / after).float()
        vectors.append(sparse * weight)
    if not vectors:
        return base
    if step.rule in ELECTING:
        sign = torch.where(sum(vector.double() for vector in vectors) >= 0, 1.0, -1.0)
        agreeing = [vector.sign() == sign for vector in vectors]
        total = in_turn([torch.where(agrees, vector, 0.0) for agrees, vector in zip(agreeing, vectors, strict=True)])
        divisor = in_turn([torch.where(agrees, weight, 0.0) for agrees, weight in zip(agreeing, weights, strict=True)])
        divisor = torch.where(divisor == 0, 1.0, divisor)
    else:
        total, divisor = in_turn(vectors), in_turn(weights)
        divisor = torch.where(divisor.abs() < 1e-8, 1.0, divisor)
    if step.shared["normalize"]:
        total = total / divisor
    return base + total * step.shared["lambda"]


def keep(step: Step, source: int, vector: Tensor) -> Tensor:
    """Which entries a rule keeps."""
    density = 1.0 if step.rule == "task_arithmetic" else step.each["density"][source]
    size = vector.numel()
    if density >= 1:
        return torch.ones_like(vector, dtype=torch.bool)
    kept = torch.zeros(size, dtype=torch.bool)
    if density > 0 and step.rule == "ties":
        order = vector.abs().flatten().sort(descending=True, stable=True).indices
        kept[order[: max(1, int(density * size))]] = True
    elif density > 0 and step.rule.startswith("breadcrumbs"):
        order = vector.abs().flatten().sort(stable=True).indices
        count = int(density * size)
        first = max(0, size - count - int(step.each["gamma"][source] * size))
        kept[order[first : first + count]] = True
    elif density > 0:
        draws = uniform(step.seed, step.draws[source], step.name, size)
        kept = torch.tensor(draws) < torch.tensor(density)
    return kept.view(vector.shape)
