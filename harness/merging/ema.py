"""The exponential moving average of one run's checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

from harness.merging.arithmetic import Weights, weighted_sum


def exponential_average(checkpoints: Sequence[Weights], decay: float) -> Weights:
    """``m_1 = theta_1``, ``m_i = decay m_(i-1) + (1 - decay) theta_i``: the last m, in one pass over the tensors."""
    return weighted_sum(checkpoints, ema_coefficients(len(checkpoints), decay))


def ema_coefficients(count: int, decay: float) -> list[float]:
    """What each checkpoint counts in the end, in time order: they sum to 1, and the first has ``decay^(n-1)``."""
    return [decay ** (count - 1), *((1 - decay) * decay ** (count - 1 - i) for i in range(1, count))]
