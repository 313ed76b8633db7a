"""Which experts of a language model run for the tokens of each task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.utils import resolve_max_length
from torch import Tensor

from harness.evaluate.expert_use import EXPERTS, sparse_network, use_of
from harness.lm.encoding import Encoder, requests_of
from harness.models.tokens import read_tokenizer
from harness.tasks.questions import WRITTEN
from harness.tasks.text import TextTask
from harness.types import Combination

FEW = 32
"""Documents of each task that are run for it, the first ones."""


def use_on_tasks(combination: Combination, task: TextTask) -> dict[str, Any]:
    """As ``use_on_inputs``, a group for each task: the first request about each of its first documents is read."""
    module = sparse_network(combination)
    tokenizer = combination.parts()[0].tokenizer or task.heldout.tokenizer
    if module is None or tokenizer is None:
        return {}
    words = read_tokenizer(Path(tokenizer.folder))
    encoder = Encoder(words, resolve_max_length(module.config, words))
    names = [name for name, each in task.questions.tasks.items() if each.OUTPUT_TYPE != WRITTEN]

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for number, name in enumerate(names):
            instances = [question.requests[0] for question in task.questions.of[name][:FEW]]
            for request in requests_of(encoder, instances).requests:
                yield torch.tensor([request.context + request.continuation]), torch.tensor([number])

    return {EXPERTS: use_of(module, batches(), names)} if names else {}
