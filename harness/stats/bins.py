"""Equal-width bins of confidences, as calibration and its diagram share them."""

from __future__ import annotations

import numpy as np


def confidence_bins(confidence: np.ndarray, bins: int = 15) -> np.ndarray:
    """The equal-width bin (lo, hi] of each confidence [N], 0..``bins`` - 1; a confidence of 0 is in the first.

    Raises:
        ValueError: for confidences outside 0..1.
    """
    confidence = np.asarray(confidence, np.float64)
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("confidences must lie in 0..1")
    # Searching the edges, not multiplying: 0.2 * 15 rounds up, out of the bin that ends at 0.2.
    return np.maximum(np.searchsorted(bin_edges(bins), confidence, side="left") - 1, 0)


def bin_edges(bins: int) -> np.ndarray:
    """Where equal-width bins begin and end, [bins + 1], from 0 to 1."""
    return np.arange(bins + 1) / bins
