"""Losses that keep experts in use: importance, load (Shazeer 2017), Switch's auxiliary loss and the z-loss."""

from __future__ import annotations

import torch
from torch import Tensor


def squared_variation(values: Tensor) -> Tensor:
    """Squared coefficient of variation, ``Var(v) / mean(v)^2`` (population variance); 0 for a single value."""
    return values.var(unbiased=False) / (values.mean().square() + 1e-10)


def importance_loss(gates: Tensor) -> Tensor:
    """``CV^2`` of the summed gates of each expert, for gates [N, E] (Shazeer et al. 2017, section 4); 0 if equal."""
    return squared_variation(gates.sum(dim=0))


def expected_load(clean: Tensor, noisy: Tensor, spread: Tensor, k: int) -> Tensor:
    """Expected rows per expert [E]: the chance of being in the top k if that expert's noise were drawn again.

    An expert is in if it beats the k-th largest score of the *others*; with k = E it always is.

    Args:
        clean, noisy: scores [N, E] without and with noise.
        spread: the noise's standard deviation [N, E].
        k: how many experts run for each row.
    """
    rows, experts = clean.shape
    if k == experts:
        return torch.full((experts,), float(rows), device=clean.device, dtype=clean.dtype)
    top = noisy.topk(k + 1, dim=-1).values
    inside = noisy >= top[:, k - 1 : k]
    rival = torch.where(inside, top[:, k:], top[:, k - 1 : k])  # [N, E]
    spread = spread.clamp(min=1e-6)  # softplus underflows: the slope by it, 1/spread^2, would be infinite times 0
    return torch.special.ndtr((clean - rival) / spread).sum(dim=0)


def auxiliary_loss(probabilities: Tensor, chosen: Tensor) -> Tensor:
    """``E sum_i f_i P_i`` (Fedus et al. 2021, equation 4): f the share of the N rows that run expert i, P its mean.

    With k experts a row the f sum to k, as transformers has it: uniform routing gives k.

    Args:
        probabilities: [N, E], the softmax over all experts; the gradient goes through these.
        chosen: [N, k].
    """
    rows, experts = probabilities.shape
    share = torch.bincount(chosen.flatten(), minlength=experts) / max(rows, 1)
    mean = probabilities.sum(dim=0) / max(rows, 1)
    return experts * (share.to(mean.dtype) * mean).sum()


def z_loss(logits: Tensor) -> Tensor:
    """Mean squared ``logsumexp`` of the router's logits [N, E] (ST-MoE, Zoph et al. 2022, equation 5)."""
    return logits.logsumexp(dim=-1).square().sum() / max(len(logits), 1)
