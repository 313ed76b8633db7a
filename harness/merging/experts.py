"""Dense networks written with experts: which network has them, which tensors become experts, and under what names.

A place is the name of a module of the dense network that a sparse layer stands for; its router is ``PLACE.gate``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from harness.merging.arithmetic import Weights, average
from harness.types import Architecture


@dataclass(frozen=True)
class Form(ABC):
    """How the networks of one dense architecture are written with experts."""

    dense: Architecture

    active: ClassVar[str] = "k"
    """The attribute of a router that says how many experts run for a row."""

    @property
    @abstractmethod
    def places(self) -> Sequence[str]:
        """The modules that experts take the place of, from input to output."""

    @property
    def layers(self) -> Sequence[str]:
        """The layers that these are parts of, whose input is the residual stream; none where there is no such thing."""
        return ()

    @abstractmethod
    def sparse(self, experts: int, k: int, balance: float) -> Architecture:
        """The architecture with so many experts at each place, of which k run.

        Args:
            experts, k: of every place.
            balance: the weight of the balance loss in training, where the architecture has it.

        Raises:
            NotApplicable: where nothing with experts computes the same.
        """

    @abstractmethod
    def experts(self, place: str, models: Sequence[Weights]) -> dict[str, Tensor]:
        """The tensors of the experts at a place, one of each model, by their names in the sparse network."""

    @abstractmethod
    def inputs(self, place: str, model: Weights) -> int:
        """How many numbers a row has that is given to a place of a dense network."""

    def router(self, place: str, weight: Tensor) -> dict[str, Tensor]:
        """The tensors of the router at a place whose scores are ``x W^T``, for W [experts, inputs]."""
        return {f"{place}.gate.weight": weight}

    def is_shared(self, name: str) -> bool:
        """Whether a tensor of a dense network is part of none of the experts."""
        return not any(name.startswith(f"{place}.") for place in self.places)

    def routers(self, module: nn.Module) -> list[nn.Module]:
        """Those of a sparse network, place by place."""
        return [module.get_submodule(f"{place}.gate") for place in self.places]

    def assemble(
        self, models: Sequence[Weights], shared: Sequence[Weights], routers: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """The tensors of a sparse network; one tensor of each dense one is held at a time.

        Args:
            models: dense networks, an expert each at every place.
            shared: those whose mean everything else is.
            routers: of each place the weight [experts, inputs].
        """
        tensors = dict(average([Chosen(model, list(filter(self.is_shared, model))) for model in shared]))
        for place, router in zip(self.places, routers, strict=True):
            tensors |= self.experts(place, models)
            tensors |= self.router(place, router)
        return tensors


class Chosen(Mapping[str, Tensor]):
    """Some of a model's tensors, each read when it is asked for."""

    def __init__(self, weights: Weights, names: Sequence[str]) -> None:
        self._weights, self._names = weights, dict.fromkeys(names)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def stack(models: Sequence[Weights], *names: str) -> Tensor:
    """Of each model the tensors of these names, one above the other: [models, sum of rows, ...]."""
    return torch.stack([torch.cat([model[name] for name in names]) for model in models])
