"""Which experts run: the choices of a network's routers while it is run, ours and those of transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness.moe.gating import Gate
from harness.moe.layer import MixtureOfExperts
from harness.moe.routing import Routing


def routers_of(module: nn.Module) -> dict[str, nn.Module]:
    """The modules that choose among experts, by the name of the layer whose experts they are, from input to output."""
    found = {name: each for name, each in module.named_modules() if isinstance(each, Gate) or _is_transformers(each)}
    return {name.rpartition(".")[0]: each for name, each in found.items()}


def _is_transformers(module: nn.Module) -> bool:
    """Whether it is one of transformers' routers, which give scores [N, E], weights and choices [N, k]."""
    return type(module).__name__.endswith("TopKRouter") and hasattr(module, "num_experts")


class Watch:
    """What the routers of a network decided in its last pass, by layer."""

    def __init__(self) -> None:
        self.chosen: dict[str, Tensor] = {}
        """[N, k]: the experts of each row."""
        self.experts: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        """How many pairs of a row and an expert a capacity left out."""

    def _decided(self, name: str, router: nn.Module, given: Any, found: Any) -> None:
        if isinstance(found, Routing):
            self.chosen[name], self.experts[name] = found.chosen, found.experts
        else:
            scores, _, self.chosen[name] = found
            self.experts[name] = scores.shape[-1]

    def _passed(self, name: str, layer: nn.Module, given: Any, found: Any) -> None:
        assert isinstance(layer, MixtureOfExperts)
        self.dropped[name] = int(layer.dropped)


PARTS = 10
"""Of a training, whose loads are told apart."""


@contextmanager
def loads_noted(module: nn.Module) -> Iterator[list[list[float]]]:
    """While a network is trained; then the list has its expert loads in each of ``PARTS`` equal parts of the training.

    A load is the share of rows that an expert runs for, the mean over the layers that have as many experts as the
    first; it sums to k.
    """
    passes: list[Tensor] = []
    found: list[list[float]] = []
    with watched(module) as watch:

        def note(trained: nn.Module, given: Any, result: Any) -> None:
            if trained.training:
                count = next(iter(watch.experts.values()))
                alike = [chosen for name, chosen in watch.chosen.items() if watch.experts[name] == count]
                loads = [torch.bincount(chosen.flatten(), minlength=count) / len(chosen) for chosen in alike]
                passes.append(torch.stack(loads).mean(dim=0))

        handle = module.register_forward_hook(note)
        try:
            yield found
        finally:
            handle.remove()
    if passes:
        parts = torch.stack(passes).tensor_split(min(PARTS, len(passes)))
        found += [part.double().mean(dim=0).tolist() for part in parts]


@contextmanager
def watched(module: nn.Module) -> Iterator[Watch]:
    """Note what a network's routers decide while this lasts."""
    watch = Watch()
    with ExitStack() as stack:
        for name, router in routers_of(module).items():
            stack.callback(router.register_forward_hook(partial(watch._decided, name)).remove)
        for name, layer in module.named_modules():
            if isinstance(layer, MixtureOfExperts):
                stack.callback(layer.register_forward_hook(partial(watch._passed, name)).remove)
        yield watch
