"""The learned soup (Wortsman et al. 2022, arXiv:2203.05482, appendix I): mixing weights by gradient descent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from harness.merging.arithmetic import Weights, floating_names, streamed
from harness.merging.layers import layer_of
from harness.models import forward
from harness.types import Split


@dataclass(frozen=True)
class Mix:
    """How much of each member, and how that was found."""

    shares: dict[str, list[float]]
    """The members' shares in each group of tensors (a layer, or "model"): none negative, sum 1."""
    by_layer: bool
    temperature: float
    """By which the logits are divided while the shares are fitted; 1 unless it is fitted too."""
    losses: list[float]
    """Mean negative log-likelihood on the split: of the uniform mix, then after each epoch."""


def group_of(name: str, by_layer: bool) -> str:
    """The group of tensors that shares its weights with this one."""
    return layer_of(name) if by_layer else "model"


@dataclass(frozen=True)
class Descent:
    """AdamW's settings; the defaults are the paper's, with batches for small splits."""

    lr: float = 0.05
    epochs: int = 5
    batch_size: int = 64


def mix(models: Sequence[Weights], learned: Mix) -> Weights:
    """``sum_k share_k theta_k`` for each tensor."""
    names = iter(list(floating_names(models[0])))

    def combine(tensors: list[Tensor]) -> Tensor:
        stacked = torch.stack(tensors)
        shares = learned.shares[group_of(next(names), learned.by_layer)]
        return torch.tensordot(stacked.new_tensor(shares), stacked, dims=1)

    return streamed(models, combine)


def learn_mix(
    module: nn.Module,
    models: Sequence[Weights],
    split: Split,
    *,
    by_layer: bool,
    temperature: bool,
    descent: Descent,
    generator: torch.Generator,
) -> Mix:
    """The shares (a softmax, from uniform) whose mix has the least loss on a split, and with them a temperature.

    The loss is differentiated through the mixed weights, so all models are held in memory at once. Of the start and
    every epoch's end, the one with the least loss is returned.

    Args:
        module: a network of the models' architecture, on its device, in eval mode; its own weights are not used.
        models: the members' weights.
        split: the examples to fit on.
        by_layer: a softmax for each layer instead of one for the model.
        temperature: whether it is fitted, or stays 1.
        descent: how long and how fast.
        generator: gives the order of the examples.
    """
    fit = MixLoss(module, models, by_layer)
    optimiser = torch.optim.AdamW(
        [fit.scores, *([fit.log_temperature] if temperature else [])], lr=descent.lr, weight_decay=0.0
    )
    labels = split.labels.view(len(split.inputs), -1)
    losses = [fit.loss_on(split)]
    shares, divisor = fit.found()
    for _ in range(descent.epochs):
        for rows in torch.randperm(len(split.inputs), generator=generator).split(descent.batch_size):
            optimiser.zero_grad()
            fit.loss(split.inputs[rows], labels[rows]).backward()
            optimiser.step()
        losses.append(fit.loss_on(split))
        if losses[-1] < min(losses[:-1]):
            shares, divisor = fit.found()
    return Mix(shares, by_layer, divisor, losses)


class MixLoss:
    """The scores [groups, M] behind the softmax, the logarithm of the temperature, and the loss as their function."""

    def __init__(self, module: nn.Module, models: Sequence[Weights], by_layer: bool) -> None:
        device = next(module.parameters()).device
        self.network = _Logits(module)
        names = list(floating_names(models[0]))
        self.stacks = {n: torch.stack([m[n].to(device, torch.float32) for m in models]) for n in names}  # [M, ...]
        self.groups = {name: group_of(name, by_layer) for name in names}
        self.trainable = {name for name, _ in module.named_parameters()}
        self.scores = torch.zeros(len(set(self.groups.values())), len(models), device=device, requires_grad=True)
        self.log_temperature = torch.zeros((), device=device, requires_grad=True)

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Mean negative log-likelihood of the mix on a batch."""
        shares = self.shares()
        weights = {}
        for name, stack in self.stacks.items():
            share = shares[self.groups[name]]
            if name not in self.trainable:  # there is no gradient by BatchNorm's statistics
                share = share.detach()
            weights[f"module.{name}"] = torch.tensordot(share, stack, dims=1)
        logits = functional_call(self.network, weights, (inputs,)).float() / self.log_temperature.exp()
        return functional.cross_entropy(logits, labels.flatten().to(logits.device))

    def loss_on(self, split: Split) -> float:
        """The same over a whole split, without gradients."""
        labels = split.labels.view(len(split.inputs), -1)
        with torch.no_grad():
            batches = zip(split.inputs.split(split.batch), labels.split(split.batch), strict=True)
            total = sum(float(self.loss(inputs, of)) * len(of) for inputs, of in batches)
        return total / len(labels)

    def shares(self) -> dict[str, Tensor]:
        """The members' shares [M] of each group."""
        return dict(zip(dict.fromkeys(self.groups.values()), self.scores.softmax(dim=1), strict=True))

    def found(self) -> tuple[dict[str, list[float]], float]:
        """The shares and the temperature as they are now."""
        shares = {group: share.tolist() for group, share in self.shares().items()}
        return shares, float(self.log_temperature.detach().exp())


class _Logits(nn.Module):
    """``forward.logits`` as a module, which is what ``functional_call`` takes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: Tensor) -> Tensor:
        return forward.logits(self.module, batch)
