"""Routers of experts: from prototypes of what each expert was trained on, or trained while all else is frozen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.merging.experts import Form
from harness.merging.own_data import spread
from harness.models import forward
from harness.models.training import TrainingLog, train, usual_schedule
from harness.moe.gating import Gate
from harness.moe.losses import auxiliary_loss
from harness.types import Split

States = Literal["experts", "last"]
"""Which states a prototype is the mean of: what the experts are given, over all tokens; or of every text what enters
the layer at its last token, as mergekit-moe's ``hidden`` has it."""


def prototypes(module: nn.Module, form: Form, own: Sequence[Iterable[Tensor]], states: States) -> list[Tensor]:
    """Of each place the weight [experts, inputs] whose rows are the experts' mean states, each of length 1.

    A prototype without any batches, or of states that are all zero, is zeros: another expert is preferred to it.

    Args:
        module: the dense network that is run, in eval mode.
        form: where its experts go.
        own: of each expert the batches [B, ...] that tell what it is for, as ``forward.logits`` takes them.
        states: which states count.
    """
    watched = form.places if states == "experts" else form.layers
    means = [_mean_states(module, watched, batches, states) for batches in own]
    widths = [next(mean[place].shape for mean in means if mean) for place in range(len(watched))]
    rows = [[mean[place] if mean else torch.zeros(widths[place]) for mean in means] for place in range(len(watched))]
    return [torch.stack([row / row.norm().clamp(min=1e-8) for row in of_place]) for of_place in rows]


def _mean_states(module: nn.Module, watched: Sequence[str], batches: Iterable[Tensor], states: States) -> list[Tensor]:
    """What the modules of these names are given [inputs], its mean over rows; empty where there are no batches."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def observe(name: str, given: Tensor) -> None:
        rows = (given[:, -1] if states == "last" else given).reshape(-1, given.shape[-1]).double()
        sums[name] = sums.get(name, 0) + rows.sum(dim=0)
        counts[name] = counts.get(name, 0) + len(rows)

    with ExitStack() as stack, torch.inference_mode():
        for name in watched:
            hook = partial(lambda name, module, given: observe(name, given[0]), name)
            stack.callback(module.get_submodule(name).register_forward_pre_hook(hook).remove)
        for batch in batches:
            forward.logits(module, batch)
    return [(sums[name] / counts[name]).float().cpu() for name in watched] if sums else []


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


def loads(module: nn.Module, form: Form, split: Split) -> dict[str, Any]:
    """How much work each expert has, as details: the share of rows (tokens of a text) that it runs for.

    ``expert_load`` is the mean over the layers that have experts, whose own are ``expert_load_by_layer``, and
    ``expert_load_by_group`` that of each group of examples; each list sums to k. Counted on a few examples of each
    group.

    Args:
        module: a sparse network, in eval mode.
        form: of it.
        split: the examples.
    """
    groups = list(split.groups) or [""] * len(split.inputs)
    rows = {group: [row for row, of in enumerate(groups) if of == group] for group in dict.fromkeys(groups)}
    few = {group: split.inputs[spread(split, some)] for group, some in rows.items()}
    by_group = {group: _loads(module, form, inputs, split.batch) for group, inputs in few.items()}
    mean = torch.stack(list(by_group.values())).mean(dim=0)
    found: dict[str, Any] = {"expert_load": mean.mean(dim=0).tolist()}
    if len(form.places) > 1:
        found["expert_load_by_layer"] = mean.tolist()
    if len(by_group) > 1:
        found["expert_load_by_group"] = {group: load.mean(dim=0).tolist() for group, load in by_group.items()}
    return found


def _loads(module: nn.Module, form: Form, inputs: Tensor, batch: int) -> Tensor:
    """Of each place the share of the rows that each expert runs for [places, experts]."""
    counts: list[Any] = [0] * len(form.places)
    rows = [0] * len(form.places)

    def observe(place: int, router: nn.Module, given: Any, found: Any) -> None:
        chosen, scores = (found.chosen, found.logits) if isinstance(router, Gate) else (found[2], found[0])
        counts[place] += torch.bincount(chosen.flatten(), minlength=scores.shape[-1]).double().cpu()
        rows[place] += len(chosen)

    with ExitStack() as stack, torch.inference_mode():
        for place, router in enumerate(form.routers(module)):
            stack.callback(router.register_forward_hook(partial(observe, place)).remove)
        for some in inputs.split(batch):
            forward.logits(module, some)
    return torch.stack([count / of for count, of in zip(counts, rows, strict=True)])
