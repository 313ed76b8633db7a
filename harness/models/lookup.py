"""A model that is known by its predictions only, as a network: it looks up what was said of a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.models.weights import ModelWeights
from harness.types import Architecture, NotApplicable

NAME = "predictions"
"""Of the architecture."""
TABLE = "log-probs"
"""The name of the table among what is stored of a model; no cost can have it."""


def architecture_of(classes: int) -> Architecture:
    """That of all models of which a table of so many classes is known."""
    return Architecture(NAME, (("classes", classes),))


def why_no_weights(name: str) -> str:
    """What is said of a model where its weights are wanted."""
    return f"{name} is known by its predictions only: there are no weights to merge or to train"


def no_network(classes: int) -> nn.Module:
    """There is none to build, so none to train either."""
    raise NotApplicable("members that are known by their predictions only have no network that could be trained")


class Lookup(nn.Module):
    """Log-probabilities of rows by their numbers.

    Args:
        table: [rows, C] float32, normalised; -inf is a probability of zero.
    """

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table, requires_grad=False)

    def forward(self, rows: Tensor) -> Tensor:
        """[B, C] of row numbers [B] int64."""
        return self.table[rows]


class PredictedWeights(ModelWeights):
    """The weights of a model of which only predictions are known: to touch them says so.

    Args:
        name: of the model.
        path: what ``save_predictions`` wrote; it is read when it is asked for, and nothing is kept.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path

    def module(self) -> Lookup:
        with safe_open(self.path, framework="pt") as file:
            return Lookup(file.get_tensor(TABLE)).eval()

    def costs(self) -> dict[str, Tensor]:
        """[rows] float64, what each answer cost as the model's own file says, by name."""
        with safe_open(self.path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name != TABLE}  # noqa: SIM118

    def _refuse(self) -> NoReturn:
        raise NotApplicable(why_no_weights(self.name))

    def __getitem__(self, name: str) -> Tensor:
        self._refuse()

    def __iter__(self) -> Iterator[str]:
        self._refuse()

    def __len__(self) -> int:
        self._refuse()

    def __contains__(self, name: object) -> bool:
        self._refuse()


def save_predictions(table: Tensor, costs: Mapping[str, Tensor], path: Path) -> None:
    """Write a table [rows, C] and costs [rows]: none is called as the table is, for names of costs are plain."""
    save_file({TABLE: table.contiguous(), **costs}, path)


def one_hot(answers: Tensor, classes: int) -> Tensor:
    """Log-probabilities [N, C] of models that give an answer [N] and no probabilities: 0 for it, -inf for all else."""
    table = torch.full((len(answers), classes), -torch.inf)
    return table.scatter_(1, answers.unsqueeze(1), 0.0)
