"""When a stage of a staged system has the last word on an example that is answered in writing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from torch import Tensor

from harness.systems.acceptance import Acceptance, Certain, Confidence
from harness.types import NotApplicable


class LeastToken(Certain):
    """The least of the probabilities of a written answer's tokens; nothing else is decided by it."""

    @staticmethod
    def certainty(log_probs: Tensor, models: Tensor) -> NoReturn:
        raise NotApplicable("its least probable token decides on a written answer, and classes have no tokens")


def accepts_texts(accept: Acceptance, texts: Sequence[Sequence[float]]) -> np.ndarray:
    """Whether each written answer is the last word, bool [N].

    A confidence is compared with the mean probability of an answer's tokens, the geometric one: what the length of the
    answer does not change.

    Args:
        accept: of the stage.
        texts: of each answer the log-probabilities of its tokens, at least one.

    Raises:
        NotApplicable: for an acceptance that decides by the probabilities of classes.
    """
    if isinstance(accept, Confidence):
        certainties = [np.exp(np.mean(tokens)) for tokens in texts]
    elif isinstance(accept, LeastToken):
        certainties = [np.exp(np.min(tokens)) for tokens in texts]
    else:
        kind = type(accept).__name__
        raise NotApplicable(f"{kind} decides by the probabilities of classes, and written answers have none")
    return np.array(certainties) >= accept.threshold
