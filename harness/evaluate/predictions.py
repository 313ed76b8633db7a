"""Running models over a split, in the split's own batches, in float32, without gradients; what parts say is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.evaluate.halving import in_batches
from harness.keys import Key
from harness.registry import KINDS
from harness.store import Store, read_json, write_json
from harness.systems.parts import MemberPart
from harness.types import Combination, Part, Split, stack

MAKERS = (__name__, "harness.systems.systems", "harness.pools.pool", "harness.models.tokens")
"""The code behind a prediction: the loop over batches, the parts that are run, how a pool is loaded, and whose tokens
its models read. The code of a member's source, which reads its weights, is in its digest (``MemberPlan.digests``); how
its network runs on a batch, the split's kind of task says (``code_of_kind``)."""
COST, BATCH = "cost.json", "batch"


def predict(log_probs: Callable[[Tensor], Tensor], split: Split) -> Tensor:
    """Log-probabilities [N, C] of a part or a combination on a split, on the CPU.

    Args:
        log_probs: a function from a batch [B, ...] to log-probabilities [B, C], of each row whatever the others are.
        split: the examples.
    """
    return _predict(log_probs, split)[0]


def _predict(log_probs: Callable[[Tensor], Tensor], split: Split, *, by_row: bool = True) -> tuple[Tensor, int]:
    found, size = in_batches(lambda batch: log_probs(batch).cpu(), split.inputs, split.batch, by_row=by_row)
    return torch.cat(found), size


def code_of_kind(kind: str) -> tuple[str, ...]:
    """What a kind of task builds and runs its networks by: the registry finds it, so no import shows it."""
    return KINDS.get(kind).code if kind else ()


def predictions_key(part: str, split: Split, device: str) -> Key:
    """The key of one part's predictions on one split."""
    code = (*MAKERS, *code_of_kind(split.kind))
    return Key.of("predictions", code=code, part=part, split=split.digest, batch=split.batch, device=device)


def cost_of(key: Key, store: Store) -> float:
    """The seconds that predictions took; 0 where there are none."""
    return float(read_json(store.read(key) / COST)["seconds"]) if store.has(key) else 0.0


class CachedPredictions:
    """``types.Predict`` on the store: every part runs over every split once, and what that cost is recorded."""

    def __init__(self, store: Store, device: str) -> None:
        self.store, self.device = store, device
        self.seconds = 0.0
        """Spent on predictions that were not there yet."""

    def __call__(self, part: Part, split: Split) -> Tensor:
        key = predictions_key(part.digest, split, self.device)
        if not self.store.has(key):
            begin = time.perf_counter()
            found, batch = _predict(part.log_probs, split, by_row=part.by_row)
            seconds = time.perf_counter() - begin
            self.seconds += seconds
            _check_numbers(part, found, split)
            with self.store.write(key) as folder:
                save_file({"log_probs": found}, folder / "log_probs.safetensors")
                write_json(folder / COST, {"seconds": seconds, BATCH: batch})
        return _read(self.store.read(key))

    def batch(self, part: Part, split: Split) -> int:
        """Examples in the batches that a part's predictions were made in, after any halving."""
        key = predictions_key(part.digest, split, self.device)
        return int(read_json(self.store.read(key) / COST)[BATCH])

    def stacked(self, parts: Sequence[Part], split: Split) -> Tensor:
        """Log-probabilities [M, N, C]."""
        return stack(parts, [self(part, split) for part in parts])


def _check_numbers(part: Part, log_probs: Tensor, split: Split) -> None:
    """``ValueError`` for NaN, and for infinity that is no log-probability: what is fitted on it would mean nothing."""
    wrong = (log_probs.isnan() | log_probs.isposinf()).flatten(1).any(dim=1)
    if lost := int(wrong.sum()):
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"{part.name} gives numbers that are none (NaN, infinity) on {lost} of {len(log_probs)} examples of "
            f"{split.name}, first on number {first}"
        )


@lru_cache(maxsize=1024)
def _read(folder: Path) -> Tensor:
    return load_file(folder / "log_probs.safetensors")["log_probs"]


def said_by(parts: Sequence[Part], split: Split, cached: CachedPredictions) -> list[Tensor]:
    """Log-probabilities [N, C] of each part: members' are kept, a model that a method made is run here."""
    return [_said(part, split, cached)[0] for part in parts]


def _said(part: Part, split: Split, cached: CachedPredictions) -> tuple[Tensor, int]:
    """And the batch, after any halving."""
    if not isinstance(part, MemberPart):
        return _predict(part.log_probs, split, by_row=part.by_row)
    return cached(part, split), cached.batch(part, split)


@dataclass(frozen=True)
class Ran:
    """What a combination says of a split."""

    log_probs: Tensor
    """[N, C], on the CPU."""
    calls: Tensor
    """[N, parts], int64, as ``Combination.run`` has them."""
    combine_seconds: float
    """Spent on combining predictions that were there."""
    batch: int
    """Examples in the batches that its models were run in, after any halving."""


def run(combination: Combination, split: Split, cached: CachedPredictions) -> Ran:
    """Run a combination over a split: from the predictions of its parts where these tell what it says.

    Those of a pool's members are read or made once for all (``cached``); a model that a method made is run here.
    """
    if not combination.replays:
        by_row = all(part.by_row for part in combination.parts())
        batches, size = in_batches(combination.run, split.inputs, split.batch, by_row=by_row)
        log_probs, calls = (torch.cat([each.cpu() for each in found]) for found in zip(*batches, strict=True))
        return Ran(log_probs, calls, 0.0, size)
    predictions, sizes = zip(*(_said(part, split, cached) for part in combination.parts()), strict=True)
    begin = time.perf_counter()
    log_probs, calls = combination.replay(predictions)
    return Ran(log_probs, calls, time.perf_counter() - begin, min(sizes))
