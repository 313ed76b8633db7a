"""What a system has written in answer to the prompts of lm-eval's tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.lm.generation_request import Written


@dataclass(frozen=True)
class Answered:
    """What a combination wrote."""

    texts: list[list[str]]
    """For each prompt, as many as its task asks for."""
    calls: np.ndarray
    """[prompts, parts]: how many texts each part wrote, or had a share in, for each prompt."""
    tokens: np.ndarray
    """[prompts]: the tokens that were generated, once for each model that ran for them."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """What else is to be known of it, as JSON values."""
    measures: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Per-document values of each task besides lm-eval's, by name."""
    halved: int | None = None
    """Tokens of a batch at last; None where memory never ran out."""


def texts_of(written: Sequence[Sequence[Written]]) -> list[list[str]]:
    """The texts alone."""
    return [[each.text for each in texts] for texts in written]


def tokens_of(written: Sequence[Sequence[Written]]) -> np.ndarray:
    """How many tokens were generated for each prompt, [N]."""
    return np.array([sum(len(each.log_probs) for each in texts) for texts in written], dtype=np.int64)
