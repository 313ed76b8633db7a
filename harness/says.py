"""What is known of a model's answers: what needs more than that does not apply."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Says = Literal["text", "correctness", "answers", "probabilities"]
"""A text and no class, only whether an answer is right, which class it is, or the probabilities of all classes."""
LACKS: dict[Says, str] = {
    "text": "gives text and no class",
    "correctness": "is only known to be right or wrong",
    "answers": "gives answers without probabilities",
    "probabilities": "",
}
"""What models that say less than probabilities lack, in words; the least first."""


def says_enough(says: Says, needed: Says) -> bool:
    """Whether what is known is as much as is needed."""
    return list(LACKS).index(says) >= list(LACKS).index(needed)


def least_said(of: Iterable[Says]) -> Says:
    """What is known where models are combined: no more than of the one that says least."""
    return min(of, key=list(LACKS).index, default="probabilities")
