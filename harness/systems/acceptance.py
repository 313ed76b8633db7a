"""When a stage of a staged system has the last word on an example: functions of what its models say of it.

Every one is a frozen dataclass of numbers, which is saved as JSON and found again by its name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

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
class Confidence(Acceptance):
    """The probability of the most probable class is at least the threshold: 0 accepts all, above 1 accepts none."""

    threshold: float

    def __call__(self, log_probs: Tensor, models: Tensor) -> Tensor:
        return log_probs.max(dim=-1).values.exp() >= self.threshold
