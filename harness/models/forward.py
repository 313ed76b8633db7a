"""One way to run any network of the zoo: images give one row of logits each, token windows one for each next token."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def logits(module: nn.Module, batch: Tensor) -> Tensor:
    """Logits [N, C] of a batch on the module's device.

    Images [B, ...] (floating point) give N = B rows over classes; token windows [B, L] (integers) give
    N = B * (L - 1) rows over the vocabulary: what follows each token but the last.
    """
    batch = batch.to(next(module.parameters()).device)
    if batch.is_floating_point():
        return module(batch)
    return module(input_ids=batch[:, :-1], use_cache=False).logits.flatten(0, 1)


def log_probs(module: nn.Module, batch: Tensor) -> Tensor:
    """Normalised log-probabilities [N, C] in float32, whatever the module's own precision."""
    return torch.log_softmax(logits(module, batch).float(), dim=-1)
