"""When a stage of a staged system has the last word on an example: functions of what its models say of it.

Every one is a frozen dataclass of numbers, which is saved as JSON and found again by its name.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

ACCEPTANCES: dict[str, type[Acceptance]] = {}


class Acceptance(ABC):
    """Which examples a stage answers; subclasses are frozen dataclasses and register themselves by name for loading."""

    def __init_subclass__(cls) -> None:
        ACCEPTANCES[cls.__name__] = cls

    @abstractmethod
    def __call__(self, log_probs: Tensor, models: Tensor) -> Tensor:
        """Whether each example is answered, bool [N]; one alone has the answer that it has among others.

        Args:
            log_probs: what the stage says, [N, C].
            models: what every model says that has run on these examples so far, in this stage or before, [M, N, C].
        """

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        return {"kind": type(self).__name__, **asdict(self)}  # type: ignore[call-overload]

    @staticmethod
    def restore(values: Mapping[str, Any]) -> Acceptance:
        """What ``describe`` wrote down."""
        given = dict(values)
        return ACCEPTANCES[given.pop("kind")](**given)


@dataclass(frozen=True)
class Certain(Acceptance):
    """A certainty in 0..1 is at least the threshold: 0 accepts all, above 1 accepts none."""

    threshold: float

    def __call__(self, log_probs: Tensor, models: Tensor) -> Tensor:
        return self.certainty(log_probs, models) >= self.threshold

    @staticmethod
    @abstractmethod
    def certainty(log_probs: Tensor, models: Tensor) -> Tensor:
        """How certain the stage is of each example, [N] in 0..1, from what ``__call__`` is given."""


class Confidence(Certain):
    """The probability of the most probable class."""

    @staticmethod
    def certainty(log_probs: Tensor, models: Tensor) -> Tensor:
        return log_probs.max(dim=-1).values.exp()


class Margin(Certain):
    """The difference of the two highest probabilities; of a single class, 1."""

    @staticmethod
    def certainty(log_probs: Tensor, models: Tensor) -> Tensor:
        if log_probs.shape[-1] == 1:
            return torch.ones_like(log_probs[..., 0])
        first, second = log_probs.topk(2, dim=-1).values.exp().unbind(dim=-1)
        return first - second


class Entropy(Certain):
    """What the entropy lacks of that of equal probabilities, as a share of it: ``1 - H / log C``."""

    @staticmethod
    def certainty(log_probs: Tensor, models: Tensor) -> Tensor:
        if log_probs.shape[-1] == 1:
            return torch.ones_like(log_probs[..., 0])
        return 1 - torch.special.entr(log_probs.exp()).sum(dim=-1) / math.log(log_probs.shape[-1])


class Agreement(Certain):
    """The share of the models so far whose most probable class is the stage's (Agreement-Based Cascading, 2024)."""

    @staticmethod
    def certainty(log_probs: Tensor, models: Tensor) -> Tensor:
        return (models.argmax(dim=-1) == log_probs.argmax(dim=-1)).to(log_probs.dtype).mean(dim=0)
