"""Token sequences laid out in rows: what sequences share stands in a row once, under a mask in the shape of a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

LONGEST_TREE = 4096  # a tree's attention is dense: its cost grows with the square of the row


@dataclass
class Row:
    """One row of a batch: the tokens of one sequence, or of several that begin alike.

    ``depths`` [T] are the tokens' positions in their own sequences. Each branch is its first slot and the slots of
    all tokens before it in its sequence. ``paths`` gives, for each sequence, the slots of its tokens.
    """

    tokens: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    branches: list[tuple[int, np.ndarray]] = field(default_factory=list)
    paths: dict[int, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def depth(self) -> int:
        """How long its longest sequence is."""
        return max(self.depths) + 1

    @property
    def is_tree(self) -> bool:
        """Whether it holds several sequences that part; a sequence and its own beginning need no mask."""
        return len(self) > self.depth

    @property
    def last_path(self) -> np.ndarray:
        """The slots of the sequence added last."""
        return next(reversed(self.paths.values()))

    def add(self, index: int, sequence: np.ndarray, shared: int) -> None:
        """Append what a sequence does not share with the one before it."""
        ancestors = self.last_path[:shared] if self.paths else np.empty(0, dtype=np.int64)
        start = len(self)
        self.tokens.extend(sequence[shared:].tolist())
        self.depths.extend(range(shared, len(sequence)))
        self.branches.append((start, ancestors))
        self.paths[index] = np.concatenate([ancestors, np.arange(start, len(self))])

    def allowed(self) -> np.ndarray:
        """Which slot [T] may attend to which [T]: those before it on its own sequence, and itself."""
        mask = np.zeros((len(self), len(self)), dtype=bool)
        ends = [start for start, _ in self.branches[1:]] + [len(self)]
        for (start, ancestors), end in zip(self.branches, ends, strict=True):
            mask[start:end, ancestors] = True
            mask[start:end, start:end] = np.tri(end - start, dtype=bool)
        return mask


def lay_out(sequences: Sequence[tuple[int, ...]], *, packed: bool, width: int, longest: int) -> list[Row]:
    """Rows that hold all sequences, each exactly once (equal ones share their slots).

    Sorted sequences stand next to those they share most with, so each is compared with its predecessor only. Without
    ``packed`` a row is one sequence and its own beginnings: it needs no mask.

    Args:
        width: the model's hidden size; says what a token costs beside its attention.
        longest: a tree is not made longer than this many tokens.
    """
    rows: list[Row] = []
    before = np.empty(0, dtype=np.int64)
    for index in sorted(range(len(sequences)), key=sequences.__getitem__):
        sequence = np.asarray(sequences[index], dtype=np.int64)
        shared = common_length(before, sequence)
        if not rows or not _joins(rows[-1], shared, len(sequence), packed, width, longest):
            rows.append(Row())
            shared = 0
        rows[-1].add(index, sequence, shared)
        before = sequence
    return rows


def common_length(one: Sequence[int] | np.ndarray, other: Sequence[int] | np.ndarray) -> int:
    """How many tokens two sequences share from the start."""
    length = min(len(one), len(other))
    parts = np.asarray(one[:length]) != np.asarray(other[:length])
    return int(parts.argmax()) if parts.any() else length


def _joins(row: Row, shared: int, length: int, packed: bool, width: int, longest: int) -> bool:
    """Whether a sequence is cheaper as a branch of the row than as a row of its own."""
    new = length - shared
    if new == 0 or (shared == len(row) and not row.is_tree):
        return True
    if not packed or len(row) + new > min(longest, LONGEST_TREE):
        return False
    # Work of a layer in units of width: 12 * width a token, 2 for each pair that may attend; a tree's attention
    # computes all pairs of the row, a plain row's only half of them.
    as_branch = 12 * width * new + 2 * ((len(row) + new) ** 2 - len(row) ** 2)
    return as_branch < 12 * width * length + length**2


def batches(rows: Sequence[Row], tokens: int) -> list[list[Row]]:
    """Rows of one kind and like length, at most ``tokens`` with their padding; trees come first, the deepest before.

    So that memory runs out at once if it does, a row is padded by little, and packing is on trial where it is hardest.
    """
    found: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: (row.is_tree, len(row)), reverse=True):
        batch = found[-1] if found else []
        if batch and batch[0].is_tree == row.is_tree and (len(batch) + 1) * len(batch[0]) <= tokens:
            batch.append(row)
        else:
            found.append([row])
    return sorted(found, key=lambda batch: (batch[0].is_tree, max(row.depth for row in batch)), reverse=True)
