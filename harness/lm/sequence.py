"""The sequence-level ensemble: members with different tokenizers are mixed by continuations, not by tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.errors import BadInput
from harness.systems.rules import mix_linear
from harness.systems.systems import SEQUENCE_LEVEL


def sequence_mixture(log_likelihoods: Tensor, weights: Tensor) -> Tensor:
    """``log sum_k w_k P_k(continuation)`` [R] from log-likelihoods [M, R] of continuations.

    Weights [M] are on the simplex. Each member scores the text with its own tokens; one with weight 1 is itself bit
    for bit. There is no greedy continuation of such a system: no member of it can be asked for the next token.

    Raises:
        BadInput: for weights that are not one per member, negative, or do not sum to 1.
    """
    if len(weights) != len(log_likelihoods):
        raise BadInput(f"{len(weights)} weights for {len(log_likelihoods)} members", place=SEQUENCE_LEVEL)
    if (weights < 0).any() or not torch.isclose(weights.double().sum(), torch.tensor(1.0, dtype=torch.float64)):
        raise BadInput(f"weights {weights.tolist()} are not on the simplex", place=SEQUENCE_LEVEL)
    used = weights.nonzero().flatten()
    return log_likelihoods[used[0]] if len(used) == 1 else mix_linear(log_likelihoods, weights)
