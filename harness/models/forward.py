"""The one way to run any network on a batch: as the kind of task that it is for says."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from harness.registry import KINDS
from harness.types import Reader

Network = TypeVar("Network", bound=nn.Module)
MARK = "stockpot_kind"
"""The attribute of a network that says which kind of task it is for."""
READER = "stockpot_reader"
"""The attribute of one that is given raw examples: its tokenizer or image processor."""


def as_read_by(kind: str | None, module: Network, reader: Reader | None = None) -> Network:
    """The module, marked as one of a kind of task, and with what reads raw examples for it, where it needs that.

    Whoever builds or loads a network says so.
    """
    setattr(module, MARK, kind)
    if reader is not None:
        setattr(module, READER, reader)
    return module


def reader_of(module: nn.Module) -> Reader:
    """What reads raw examples for a network."""
    reader: Reader = getattr(module, READER)
    return reader


def logits(module: nn.Module, batch: Tensor) -> Tensor:
    """Logits [N, C] of a batch [B, ...] on the module's device, a row for each label; one of no kind is called on it.

    (What wraps a network hands on its mark, or is of no kind and runs the network itself.)
    """
    batch = batch.to(next(module.parameters()).device)
    kind: str | None = getattr(module, MARK, None)
    return plain(module, batch) if kind is None else KINDS.get(kind).logits(module, batch)


def plain(module: nn.Module, batch: Tensor) -> Tensor:
    """What a network returns: logits [B, C] of inputs with one label each."""
    found: Tensor = module(batch)
    return found


def log_probs(module: nn.Module, batch: Tensor) -> Tensor:
    """Normalised log-probabilities [N, C] in float32, whatever the module's own precision."""
    return torch.log_softmax(logits(module, batch).float(), dim=-1)
