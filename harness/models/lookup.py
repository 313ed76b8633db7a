"""A model that is known by its predictions only, as a network: it looks up what was said of a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NoReturn

import torch
from torch import Tensor, nn

from harness.models.weights import ModelWeights
from harness.types import Architecture, NotApplicable

NAME = "predictions"
"""Of the architecture."""


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
        costs: [rows] float64, what the model's own file says that each answer cost, by name.
    """

    def __init__(self, table: Tensor, costs: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.table = nn.Parameter(table, requires_grad=False)
        self.costs: dict[str, Tensor] = dict(costs)

    def forward(self, rows: Tensor) -> Tensor:
        """[B, C] of row numbers [B] int64."""
        return self.table[rows]


class PredictedWeights(ModelWeights):
    """The weights of a model of which only predictions are known: to touch them says so."""

    def __init__(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """``tensors``: the table and the costs of ``Lookup``, these by name."""
        self.name, self._tensors = name, tensors

    def module(self) -> Lookup:
        costs = {name: values for name, values in self._tensors.items() if name != TABLE}
        return Lookup(self._tensors[TABLE], costs).eval()

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


TABLE = "log_probs"
"""The name of the table among what is stored of a model."""


def one_hot(answers: Tensor, classes: int) -> Tensor:
    """Log-probabilities [N, C] of models that give an answer [N] and no probabilities: 0 for it, -inf for all else."""
    table = torch.full((len(answers), classes), -torch.inf)
    return table.scatter_(1, answers.unsqueeze(1), 0.0)
