"""Fisher-weighted averaging (Matena and Raffel 2022, arXiv:2111.09832): each weight's say is its Fisher information."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from harness.merging.arithmetic import Weights, average, substituted
from harness.models import forward


def diagonal_fisher(
    module: nn.Module, inputs: Tensor, labels: Tensor, sampled: torch.Generator | None = None
) -> dict[str, Tensor]:
    """The diagonal of the Fisher information, by parameter name: the mean over examples of squared gradients.

    An example is one input: the gradient is that of the log-likelihood of its label, or of all labels of a token
    window. Gradients are taken one example at a time, as the square of their sum says nothing of each.

    Args:
        module: the network, in eval mode.
        inputs: [N, ...], as ``forward.logits`` takes them.
        labels: flat, N times those of one input: the empirical Fisher is of the true labels.
        sampled: draws the labels from the model's own predictions with this generator instead, which makes it an
            unbiased estimate of the Fisher information, the paper's definition.
    """
    names, parameters = zip(*module.named_parameters(), strict=True)
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for example, true in zip(inputs, labels.view(len(inputs), -1), strict=True):
        log_probs = forward.log_probs(module, example.unsqueeze(0))
        label = true.to(log_probs.device)
        if sampled is not None:
            drawn = torch.multinomial(log_probs.detach().exp().cpu(), 1, generator=sampled)
            label = drawn.flatten().to(log_probs.device)
        likelihood = log_probs.gather(-1, label.unsqueeze(-1)).sum()
        # a parameter that the output does not depend on (the noise of a gate) has no information
        gradients = torch.autograd.grad(likelihood, parameters, materialize_grads=True)
        for square, gradient in zip(total, gradients, strict=True):
            square.add_(gradient.square())
    return {name: square / len(inputs) for name, square in zip(names, total, strict=True)}


def fisher_average(
    models: Sequence[Weights],
    fishers: Iterable[Mapping[str, Tensor]],
    coefficients: Sequence[float],
    *,
    floor: float = 1e-6,
    normalise: bool = True,
) -> Weights:
    """``sum_k c_k F_k theta_k / sum_k c_k F_k`` for each weight.

    Args:
        models: the members' weights.
        fishers: of each member, the diagonal by tensor name; used one after the other, so they need not all exist at
            once. Tensors without one (buffers) are averaged plainly.
        coefficients: c, not negative and not all 0.
        floor: the least Fisher information of any weight, above 0: where no member has more, they count alike.
        normalise: each member's diagonal is first divided by its norm, or a member that is less sure of everything
            outweighs the others. (The authors' code does so by default, and has the floor before it.)
    """
    weighted: dict[str, Tensor] = {}
    information: dict[str, Tensor] = {}
    for model, fisher, coefficient in zip(models, fishers, coefficients, strict=True):
        norm = math.hypot(*(float(d.norm(dtype=torch.float64)) for d in fisher.values())) if normalise else 1.0
        for name, diagonal in fisher.items():
            say = coefficient * (diagonal.cpu().double() / (norm or 1.0)).clamp(min=floor)
            # from the first member: copies of it give it back, and what is rounded is the small differences
            share = say * (model[name].double() - models[0][name].double())
            weighted[name] = share + weighted.get(name, 0.0)
            information[name] = say + information.get(name, 0.0)
    moved = {name: models[0][name].double() + weighted[name] / information[name] for name in weighted}
    return substituted(average(models), moved)
