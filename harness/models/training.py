"""Supervised training of one small model on one split: AdamW, a course of the rate, a seed for all that is random."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.exhausted import is_out_of_memory
from harness.models import causal_lm
from harness.models.forward import logits
from harness.registry import KINDS
from harness.types import Split

Loss = Callable[[Tensor, Tensor], Tensor]
"""Mean loss from logits [N, C] and the rows [B] of the split's inputs that they belong to."""


Decay = Literal["linear", "constant", "cycle", "warm_up"]


@dataclass(frozen=True)
class Schedule:
    """How long and how hard to train; ``augment`` is the standard deviation of the Gaussian noise on inputs."""

    epochs: int
    lr: float = 1e-3
    augment: float = 0.0
    batch_size: int = 64
    weight_decay: float = 0.01
    precision: str = "float32"
    """"bfloat16" runs matrix products in it (autocast); the weights stay float32."""
    decay: Decay = "linear"
    """The course of the rate: ``linear`` falls to a twentieth, ``constant`` stays (as SWA has it), and ``cycle`` rises
    from a 25th and falls to nothing along cosines, its peak after three tenths (Smith and Topin 2019, 1cycle).
    ``warm_up`` rises from a tenth during a tenth of all steps, then falls to nothing (Devlin et al. 2019)."""

    def share(self, done: float) -> float:
        """The share of ``lr`` that is the rate when this share of all steps is done."""
        if self.decay == "constant":
            return 1.0
        if self.decay == "linear":
            return 1.0 - 0.95 * done
        if self.decay == "warm_up":
            return min(0.1 + 9 * done, (1 - done) / 0.9)
        low, phase = (0.04, done / 0.3 - 1) if done < 0.3 else (0.0, (done - 0.3) / 0.7)
        return low + (1 - low) * (1 + math.cos(math.pi * phase)) / 2


def plain_schedule(epochs: int) -> Schedule:
    """That of small networks, whose inputs have one label each."""
    return Schedule(epochs)


def usual_schedule(split: Split, epochs: int = 1) -> Schedule:
    """Rate, batch size and precision as the split's kind of task has them."""
    return KINDS.get(split.kind).schedule(epochs) if split.kind else plain_schedule(epochs)


@dataclass(frozen=True)
class TrainingLog:
    """What a training run cost."""

    seconds: float
    examples: int


def train(
    module: nn.Module,
    split: Split,
    schedule: Schedule,
    *,
    seed: int,
    rows: Sequence[int] | None = None,
    loss: Loss | None = None,
    after_epoch: Callable[[int], None] | None = None,
) -> TrainingLog:
    """Train the module in place and leave it in eval mode.

    Args:
        module: the network; its device is where it is trained.
        split: the training examples; at most ``split.batch`` of a batch are run at once, and their gradients added up.
        schedule: epochs, rate, noise, batch size.
        seed: seeds the order, the noise and the dropout; the global generator is left as it was.
        rows: the rows to train on, with repeats (a bootstrap resample); all of them by default.
        loss: instead of the cross-entropy with the split's labels. A module's ``aux_loss`` is added to either.
        after_epoch: called with the number of finished epochs, the module in eval mode.
    """
    with _in_memory(min(schedule.batch_size, split.batch)):
        return _train(module, split, schedule, seed=seed, rows=rows, loss=loss, after_epoch=after_epoch)


@contextmanager
def _in_memory(batch: int) -> Iterator[None]:
    """Where memory runs out, what to do: what is random in training is drawn for a batch, so that none is halved."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        hint = "run fewer jobs at once (--workers), or train a smaller network, or on a larger machine"
        raise RuntimeError(f"there is no memory to train on {batch} examples at once: {hint} ({error})") from error


def _train(
    module: nn.Module,
    split: Split,
    schedule: Schedule,
    *,
    seed: int,
    rows: Sequence[int] | None,
    loss: Loss | None,
    after_epoch: Callable[[int], None] | None,
) -> TrainingLog:
    device = next(module.parameters()).device
    inputs, labels = split.inputs.to(device), split.labels.to(device).view(len(split.inputs), -1)
    chosen = torch.arange(len(inputs)) if rows is None else torch.as_tensor(rows)
    loss = loss or (lambda found, batch: functional.cross_entropy(found, labels[batch].flatten()))
    batches = -(-len(chosen) // schedule.batch_size)
    optimiser = torch.optim.AdamW(module.parameters(), lr=schedule.lr, weight_decay=schedule.weight_decay, fused=True)
    steps = schedule.epochs * batches
    course = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: schedule.share(step / steps))
    zero = torch.zeros((), device=device)
    auxiliary: list[Any] = [layer for layer in module.modules() if hasattr(layer, "aux_loss")]
    begin = time.perf_counter()
    with causal_lm.attention_for_training(module), torch.random.fork_rng(
        devices=[device] if device.type == "cuda" else []
    ):
        torch.manual_seed(seed)
        for epoch in range(schedule.epochs):
            module.train()
            for batch in chosen[torch.randperm(len(chosen))].to(device).split(schedule.batch_size):
                optimiser.zero_grad(set_to_none=True)
                for piece in batch.split(split.batch):  # a whole batch of a large model may take too much memory
                    images = inputs[piece]
                    if schedule.augment:
                        images = images + schedule.augment * torch.randn_like(images)
                    with torch.autocast(device.type, torch.bfloat16, enabled=schedule.precision == "bfloat16"):
                        found = logits(module, images)
                    objective = loss(found.float(), piece) + sum((layer.aux_loss for layer in auxiliary), start=zero)
                    (objective * (len(piece) / len(batch))).backward()
                optimiser.step()
                course.step()
            module.eval()
            if after_epoch:
                after_epoch(epoch + 1)
    return TrainingLog(time.perf_counter() - begin, schedule.epochs * len(chosen))
