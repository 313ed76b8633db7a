"""Examples in batches, of which the next ones have half as many where memory ran out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from harness.exhausted import free_memory, is_out_of_memory

HALVED = "batch"
"""The key under which details.json says how many examples a batch had at last, where that is fewer than was stated."""
HALVED_TOKENS = "batch_tokens"
"""The same of language models, whose batches are counted in tokens."""

Said = TypeVar("Said")


class NoMemory(RuntimeError):
    """Memory ran out where batches cannot be halved."""


def in_batches(
    run: Callable[[Tensor], Said], inputs: Tensor, size: int, *, by_row: bool = True
) -> tuple[list[Said], int]:
    """What ``run`` gives for one batch after the other, without gradients.

    Args:
        run: a function of a batch [B, ...].
        inputs: [N, ...].
        size: examples in a batch, to begin with.
        by_row: whether what it says of an example is the same whatever else is in the batch: else none is halved.

    Returns:
        What it gives, in the order of the inputs, and how many examples a batch had at last.

    Raises:
        NoMemory: one example is too many, or batches must stay as they are.
    """
    found: list[Said] = []
    start = 0
    with torch.inference_mode():
        while start < len(inputs):
            batch = inputs[start : start + size]
            try:
                found.append(run(batch))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                _check(len(batch), by_row, error)
            else:
                start += len(batch)
                continue
            size = len(batch) // 2  # out of the block above, for the error holds on to what filled the memory
            free_memory()
    return found, size


def with_fewer(run: Callable[[int], Said], examples: int) -> Said:
    """What ``run`` gives for so many examples at once or, where memory runs out, for half as many, down to one."""
    while True:
        try:
            return run(examples)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or examples <= 1:
                raise
        examples //= 2
        free_memory()


def _check(examples: int, by_row: bool, error: Exception) -> None:
    if not by_row:
        why = f"for a batch of {examples}, and it draws anew for every batch, so that other batches were another result"
    elif examples == 1:
        why = "for a single example"
    else:
        return
    raise NoMemory(f"there is no memory {why}: run fewer at once (--workers), or on a larger machine ({error})")
