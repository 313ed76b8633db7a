"""Windows of tokens: how causal language models are run on them, and how they are trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.models.training import Schedule


def logits(module: nn.Module, batch: Tensor) -> Tensor:
    """Logits [B * (L - 1), C] of windows [B, L] over the vocabulary: what follows each token but the last."""
    found: Tensor = module(input_ids=batch[:, :-1], use_cache=False).logits
    return found.flatten(0, 1)


def schedule(epochs: int) -> Schedule:
    """Windows are many examples each: there are few in a batch."""
    return Schedule(epochs, lr=2e-3, batch_size=8, precision="bfloat16" if _bfloat16_pays() else "float32")


def _bfloat16_pays() -> bool:
    """Whether this processor multiplies matrices in bfloat16 itself."""
    return torch.cuda.is_available() or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
