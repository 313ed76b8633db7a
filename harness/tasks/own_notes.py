"""What a reader of scores on a user's own data should know of that data: leaks, contradictions, missing classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WORDS = {"train": "training", "heldout": "held-out", "test": "test"}
PAIRS = (("test", "train"), ("test", "heldout"), ("heldout", "train"))
SHOWN = 5
"""Names that are listed at most."""


@dataclass(frozen=True)
class Kept:
    """The examples of a task."""

    names: Sequence[str]
    """Of the labels."""
    labels: np.ndarray
    """[N] int64."""
    digests: np.ndarray
    """[N, 32] uint8, of their bytes."""
    clusters: np.ndarray | None
    """[N] names, where a column says them."""
    rows: Mapping[str, np.ndarray]
    """Of each split, positions of examples."""


def notes_of(examples: Kept) -> Iterator[str]:
    """One sentence each."""
    contents = np.unique(np.ascontiguousarray(examples.digests[:, :8]).view(np.uint64)[:, 0], return_inverse=True)[1]
    yield from _leaks(contents, examples.rows)
    yield from _contradictions(contents, examples.labels)
    if examples.clusters is not None:
        yield from _torn(np.unique(examples.clusters.astype(str), return_inverse=True)[1], examples.rows)
    yield from _missing(examples)


def _leaks(contents: np.ndarray, rows: Mapping[str, np.ndarray]) -> Iterator[str]:
    for one, other in PAIRS:
        shared = int(np.isin(contents[rows[one]], contents[rows[other]]).sum())
        if shared:
            yield f"{shared} of {len(rows[one])} {WORDS[one]} examples are {WORDS[other]} examples too, byte for byte"


def _contradictions(contents: np.ndarray, labels: np.ndarray) -> Iterator[str]:
    pairs = np.unique(np.stack([contents, labels]), axis=1)[0]
    torn = np.bincount(pairs, minlength=contents.max() + 1) > 1  # of each content, whether it has several labels
    if torn.any():
        yield f"{int(torn.sum())} examples are there with different labels, {int(torn[contents].sum())} times in all"


def _torn(clusters: np.ndarray, rows: Mapping[str, np.ndarray]) -> Iterator[str]:
    for one, other in PAIRS:
        ours, theirs = np.unique(clusters[rows[one]]), np.unique(clusters[rows[other]])
        if shared := len(np.intersect1d(ours, theirs)):
            yield f"{shared} of {len(ours)} clusters of {WORDS[one]} examples have {WORDS[other]} examples too"


def _missing(examples: Kept) -> Iterator[str]:
    for split, rows in examples.rows.items():
        counts = np.bincount(examples.labels[rows], minlength=len(examples.names))
        lacking = [name for name, count in zip(examples.names, counts, strict=True) if not count]
        if lacking:
            shown = ", ".join(f"'{name}'" for name in lacking[:SHOWN])
            more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
            yield f"no {WORDS[split]} example has the label {shown}{more}"
