"""Model Stock (Jang et al. 2024, arXiv:2403.19522): from the base towards the mean, as far as the fine-tunes agree."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.merging.arithmetic import Weights, streamed
from harness.merging.inner_products import stock_ratio


def model_stock(
    base: Weights, models: Sequence[Weights], *, filter_wise: bool = False, norm_floor: float = 0.0
) -> tuple[Weights, list[float]]:
    """``theta_0 + t (mean_k theta_k - theta_0)`` with ``t = k c / (1 + (k - 1) c)`` for each tensor.

    c is the mean cosine of the angles between two fine-tunes' updates ``theta_k - theta_0``: updates that agree give
    t = 1, orthogonal ones the base, and updates that point away from each other a negative t.

    Args:
        base: the weights all models were fine-tuned from.
        models: at least two.
        filter_wise: one ratio for each output unit (first axis) of a tensor of two axes or more. mergekit 0.1.5 takes
            the last axis alone, which is the same for matrices and a row of a kernel for convolutions.
        norm_floor: the least product of two updates' norms in the cosine. mergekit has 1e-6, which draws small
            updates to the base; the paper has none, and an update of norm 0 is orthogonal to any other.

    Returns:
        The weights, and each floating-point tensor's ratio (the mean over its units), in the order they are stored.
    """
    if len(models) < 2:
        raise ValueError("model stock needs the angle between two models")
    ratios: list[float] = []

    def combine(tensors: list[Tensor]) -> Tensor:
        start = tensors[0]
        by_unit = filter_wise and start.dim() > 1 and start.numel() > 0
        updates = [(t - start).flatten(1) if by_unit else (t - start).reshape(1, -1) for t in tensors[1:]]  # [U, D]
        ratio = _ratio(updates, norm_floor)
        ratios.append(float(ratio.mean()))
        mean = torch.stack(updates).mean(dim=0)
        return start + (ratio.to(mean.dtype).unsqueeze(1) * mean).reshape(start.shape)

    return streamed([base, *models], combine), ratios


def _ratio(updates: Sequence[Tensor], norm_floor: float) -> Tensor:
    """t for each unit [U], from k updates [U, D]."""
    vectors = torch.stack([update.double() for update in updates], dim=1)  # [U, k, D]
    grams = (vectors @ vectors.transpose(1, 2)).cpu().numpy()
    return torch.from_numpy(stock_ratio(grams, norm_floor)).to(updates[0].device)
