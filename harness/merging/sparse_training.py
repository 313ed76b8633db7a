"""Training networks with experts: their routers alone, or whole, with a loss that keeps all experts in use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.merging.experts import Form
from harness.models.training import TrainingLog, train, usual_schedule
from harness.moe.gating import Gate
from harness.moe.losses import auxiliary_loss
from harness.types import Split


def train_routers(
    module: nn.Module, form: Form, split: Split, *, steps: int, lr: float, balance: float, seed: int
) -> TrainingLog:
    """Train the routers of a sparse network on a split, by its own loss and a balance loss; nothing else changes.

    All experts run meanwhile, so that a router learns of those that it would not choose, and also where one alone runs,
    whose weight is 1 whatever its score.

    Args:
        module: the network; it is left in eval mode.
        form: of it.
        split: the training examples.
        steps: of the optimiser, in batches of the usual size.
        lr: its rate at the start; it falls as is usual.
        balance: the weight of the balance loss.
        seed: of the order.
    """
    trained = {parameter for router in form.routers(module) for parameter in router.parameters()}
    every = len(next(iter(trained)))
    needed = {parameter: parameter.requires_grad for parameter in module.parameters()}
    with balanced(form, module, balance), ExitStack() as stack:
        for parameter, before in needed.items():
            stack.callback(parameter.requires_grad_, before)
            parameter.requires_grad_(parameter in trained)
        for router in form.routers(module):
            stack.callback(setattr, router, form.active, getattr(router, form.active))
            setattr(router, form.active, every)
        stack.enter_context(_statistics_kept(module))
        return train_for(module, split, steps, lr, seed)


def train_for(module: nn.Module, split: Split, steps: int, lr: float, seed: int) -> TrainingLog:
    """Train a network for so many steps, with the usual batches of its kind of task; examples come in random order,
    all of them before any comes again."""
    schedule = replace(usual_schedule(split), lr=lr)
    wanted, count = steps * schedule.batch_size, len(split.inputs)
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(count, generator=generator) for _ in range(-(-wanted // count))]
    return train(module, split, schedule, seed=seed, rows=torch.cat(orders)[:wanted].tolist())


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Normalisation layers stay in eval mode meanwhile, whatever mode the network is put in."""
    kept: list[Any] = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    for layer in kept:
        layer.train = lambda mode=True, layer=layer: layer
    try:
        yield
    finally:
        for layer in kept:
            del layer.train


@contextmanager
def balanced(form: Form, module: nn.Module, weight: float) -> Iterator[None]:
    """While this lasts, routers of transformers have a balance loss, as ``aux_loss``: its mean over them counts.

    The experts that count as chosen are as many as run when it begins. Routers of ``harness.moe`` have their own loss.
    """
    watched: list[Any] = [router for router in form.routers(module) if not isinstance(router, Gate)]

    def observe(k: int, router: Any, given: Any, found: Any) -> None:
        scores, _, chosen = found  # the best first
        balance = auxiliary_loss(torch.softmax(scores.float(), dim=-1), chosen[:, :k])
        router.aux_loss = weight / len(watched) * balance

    handles = [router.register_forward_hook(partial(observe, getattr(router, form.active))) for router in watched]
    for router in watched:
        router.aux_loss = torch.zeros((), device=router.weight.device)
    try:
        yield
    finally:
        for handle, router in zip(handles, watched, strict=True):
            handle.remove()
            del router.aux_loss
