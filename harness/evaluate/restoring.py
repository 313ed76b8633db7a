"""What held-out says of restoring texts: which of them mark anything, and how many tokens more are worth doubting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.evaluate.heldout import score
from harness.evaluate.predictions import predict
from harness.models.classifiers import texts_of
from harness.models.masked import mask_of
from harness.systems.pipeline import Pipeline
from harness.types import Reader, Split

SHARES = (0.0, 0.05, 0.1, 0.2)
"""Of a text's tokens, that are tried."""


def marks_any(split: Split, reader: Reader) -> bool:
    """Whether any text of a split has a model's mask in it."""
    mask = mask_of(reader)[0]
    return any(mask in text for texts in texts_of(split.inputs) for text in texts)


def best_share(build: Callable[[float], Pipeline], heldout: Split) -> dict[str, Any]:
    """The share whose pipeline scores best on held-out, the smallest of equals, with the curve of all."""
    curve = []
    for share in SHARES:
        found = score(predict(build(share).log_probs, heldout), heldout.labels, heldout.criterion)
        accuracy, likelihood = found if heldout.criterion == "accuracy" else found[::-1]
        curve.append({"share": share, "accuracy": accuracy, "nll": -likelihood})
    sign = {"accuracy": 1.0, "nll": -1.0}
    other = "nll" if heldout.criterion == "accuracy" else "accuracy"
    best = max(curve, key=lambda at: (sign[heldout.criterion] * at[heldout.criterion], sign[other] * at[other]))
    return {"share": best["share"], "heldout": curve}
