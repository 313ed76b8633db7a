"""How many examples have which label, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

SHOWN = 8
"""Labels that are shown one by one, at most."""


def class_counts(labels: Sequence[int], names: Sequence[str]) -> str:
    """"neg 40, pos 60"; of many labels how many there are and how often they occur; nothing where they have no names.

    Args:
        labels: of the examples, from 0.
        names: of all labels, in order.
    """
    counts = Counter(labels)
    of_each = [counts[label] for label in range(len(names))]
    if len(names) > SHOWN:
        return f"{len(names)} labels of {min(of_each)} to {max(of_each)} examples each"
    return ", ".join(f"{name} {count}" for name, count in zip(names, of_each, strict=True))
