"""An ensemble on one GPU with all its members at once, each on a stream of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from harness.systems.systems import OutputCombination
from harness.types import Combination, Part


class AtOnce(Combination):
    """The same numbers as the ensemble's, whose members do not wait for one another.

    Whether that is faster depends on how much of the device one member leaves idle; it holds all their activations.
    """

    def __init__(self, ensemble: OutputCombination, device: torch.device) -> None:
        self.ensemble, self.details = ensemble, ensemble.details
        for part in ensemble.parts():
            _ = part.network  # loaded before any stream uses it
        torch.cuda.synchronize(device)
        self.streams = [torch.cuda.Stream(device) for _ in ensemble.parts()]

    def log_probs(self, batch: Tensor) -> Tensor:
        caller = torch.cuda.current_stream(batch.device)
        predictions = []
        for part, stream in zip(self.ensemble.parts(), self.streams, strict=True):
            stream.wait_stream(caller)
            with torch.cuda.stream(stream):
                prediction = self.ensemble.predict(part, batch)
            prediction.record_stream(caller)  # its memory is not to be used again before the caller has read it
            predictions.append(prediction)
        for stream in self.streams:
            caller.wait_stream(stream)
        return self.ensemble.combine(torch.stack(predictions))

    def parts(self) -> Sequence[Part]:
        return self.ensemble.parts()

    def save(self, folder: Path) -> None:
        self.ensemble.save(folder)


def can_run_at_once(combination: Combination, device: torch.device) -> bool:
    """Whether there is anything to run at once: several members that read the same batch, on a GPU."""
    several = isinstance(combination, OutputCombination) and not combination.by_continuation
    return device.type == "cuda" and several and len(combination.parts()) > 1
