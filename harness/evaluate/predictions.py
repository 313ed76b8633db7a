"""Running models over a split: always in the split's own batches, in float32, without gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness.types import Split


def predict(log_probs: Callable[[Tensor], Tensor], split: Split) -> Tensor:
    """Log-probabilities [N, C] of a part or a combination on a split, on the CPU.

    Args:
        log_probs: a function from a batch [B, ...] to log-probabilities [B, C].
        split: the examples.
    """
    with torch.inference_mode():
        return torch.cat([log_probs(batch).cpu() for batch in split.inputs.split(split.batch)])
