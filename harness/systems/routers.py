"""Routers: from what is known of an example before the dear models run, how probably each of them is right."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

ROUTERS: dict[str, type[Router]] = {}
SUMMARIES = 3
"""Numbers of a prediction besides its log-probabilities: confidence, margin and entropy."""
FILE, TENSORS = "router.json", "router.safetensors"


class Router(ABC):
    """What is expected of each model; subclasses are frozen dataclasses of tensors and register themselves by name."""

    def __init_subclass__(cls) -> None:
        ROUTERS[cls.__name__] = cls

    @abstractmethod
    def __call__(self, evidence: Tensor) -> Tensor:
        """The probability that each model is right, [N, M] in float64, from evidence [N, D]; row by row."""

    @property
    @abstractmethod
    def flops(self) -> float:
        """Operations that one example takes, as ``cost.flops`` counts them."""

    def save(self, folder: Path) -> None:
        """Write its name as JSON and its tensors as safetensors."""
        tensors = {field.name: getattr(self, field.name).contiguous() for field in fields(self)}  # type: ignore[arg-type]
        (folder / FILE).write_text(json.dumps(type(self).__name__))
        save_file(tensors, folder / TENSORS)

    @staticmethod
    def load(folder: Path) -> Router:
        """The one saved in a folder."""
        return ROUTERS[json.loads((folder / FILE).read_text())](**load_file(folder / TENSORS))


@dataclass(frozen=True)
class Logistic(Router):
    """``sigmoid(x W + b)`` of evidence that was centred and scaled: W [D, M], b [M]."""

    centre: Tensor
    scale: Tensor
    weights: Tensor
    bias: Tensor

    def __call__(self, evidence: Tensor) -> Tensor:
        return torch.sigmoid(standardised(evidence, self.centre, self.scale) @ self.weights + self.bias)

    @property
    def flops(self) -> float:
        return 2.0 * self.weights.numel()


@dataclass(frozen=True)
class Neighbours(Router):
    """The share of the nearest known examples that each model is right on; of equally near ones the first."""

    centre: Tensor
    scale: Tensor
    known: Tensor
    """Evidence of examples [K, D], centred and scaled."""
    right: Tensor
    """[K, M], 0 or 1."""
    count: Tensor
    """How many neighbours are asked, as a tensor of one number."""

    def __call__(self, evidence: Tensor) -> Tensor:
        return torch.cat([self._of(rows) for rows in evidence.split(256)])

    def _of(self, evidence: Tensor) -> Tensor:
        rows = standardised(evidence, self.centre, self.scale)
        # the products that make distances faster round differently for other numbers of rows
        distances = torch.cdist(rows, self.known, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distances.sort(dim=1, stable=True).indices[:, : int(self.count)]
        return self.right[nearest].mean(dim=1)

    @property
    def flops(self) -> float:
        return 3.0 * self.known.numel()


def standardised(evidence: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    """Evidence [N, D] in float64, centred and scaled."""
    return (evidence.double() - centre) / scale


def classes_known(router: Logistic | Neighbours) -> int:
    """Of how many classes the predictions were that a router was fitted on (``evidence_of``)."""
    return len(router.centre) - SUMMARIES


def evidence_of(log_probs: Tensor) -> Tensor:
    """What a prediction [N, C] tells a router, [N, C + 3]: its log-probabilities, confidence, margin and entropy.

    Probabilities below e^-30 are as good as none, and count as that.
    """
    logs = log_probs.double().clamp(min=-30)
    ordered = logs.exp().sort(dim=-1, descending=True).values
    margin = ordered[:, :1] - ordered[:, 1:2] if logs.shape[-1] > 1 else ordered
    entropy = torch.special.entr(logs.exp()).sum(dim=-1, keepdim=True)
    return torch.cat([logs, ordered[:, :1], margin, entropy], dim=-1)
