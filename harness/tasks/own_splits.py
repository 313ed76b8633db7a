"""Splitting off held-out and test: by class, the same rows whatever their order, and groups never torn apart."""

from __future__ import annotations

import numpy as np

from harness.tasks.labelled import stratified_rows

FINEST = 100
"""Bins that groups are put into, at most: a share is so many of them."""


def sizes_of_classes(counts: np.ndarray, shares: tuple[float, float]) -> np.ndarray:
    """How many examples of each class are train, held-out and test, int [C, 3]: each within one of its exact share.

    What rounding takes from a split in one class it gives back in the next, so that it does not add up.

    Args:
        counts: [C] examples of each class, two or more.
        shares: of held-out and test.
    """
    parts = np.array([1 - sum(shares), *shares])
    owed, found = np.zeros(3), []
    for count in counts:
        exact = np.round(count * parts, 9)
        sizes = np.floor(exact).astype(np.int64)
        left = exact - sizes
        wants = np.where(left > 0, left + owed, -np.inf)
        if not sizes[0]:
            wants[0] = np.inf  # no class is missing from train
        sizes[np.argsort(-wants, kind="stable")[: count - sizes.sum()]] += 1
        owed = owed + exact - sizes
        found.append(sizes)
    return np.array(found).reshape(-1, 3)


def split_off(labels: np.ndarray, order: np.ndarray, shares: tuple[float, float], fold: int) -> tuple[np.ndarray, ...]:
    """Positions of train, held-out and test among examples, stratified.

    Args:
        labels: [N].
        order: [N] positions in an order that the examples themselves give.
        shares: of held-out and test.
        fold: as ``stratified_rows``.
    """
    sizes = sizes_of_classes(np.unique(labels, return_counts=True)[1], shares)
    return tuple(order[rows.numpy()] for rows in stratified_rows(labels[order], sizes, fold))


def bins_of(groups: np.ndarray, labels: np.ndarray, order: np.ndarray, count: int) -> np.ndarray:
    """A bin for each example [N], the same for all of a group: bins have about equal shares of each class.

    The largest groups are placed first, each where it adds least to the sum of squares of what bins hold of each class
    and in all.

    Args:
        groups: [N] int64, from 0.
        labels: [N] int64, from 0.
        order: [N] positions in an order that the examples themselves give: it decides between equals.
        count: of bins.
    """
    of = np.zeros((groups.max() + 1, labels.max() + 2))  # [G, C + 1]: each class, and all
    np.add.at(of, (groups, labels), 1)
    of[:, -1] = of.sum(axis=1)
    weights = 1 / np.maximum(of.sum(axis=0), 1) ** 2
    _, first = np.unique(groups[order], return_index=True)
    rng = np.random.default_rng(20240229)
    drawn = rng.permutation(np.argsort(first, kind="stable"))
    held = np.zeros((count, of.shape[1]))
    bins = np.zeros(len(of), np.int64)
    for group in drawn[np.argsort(-of[drawn, -1], kind="stable")]:
        added = of[group]
        bins[group] = chosen = int((held @ (added * weights)).argmin())
        held[chosen] += added
    return bins[groups]


def bins_for(shares: tuple[float, float]) -> tuple[int, int, int]:
    """How many bins there are, and how many of these are held-out and test, for shares that are met the best."""

    def missed(count: int) -> tuple[float, int]:
        of = _of(count)
        known = all(part or not share for part, share in zip(of, shares, strict=True)) and sum(of) < count
        return (round(sum(abs(p / count - s) for p, s in zip(of, shares, strict=True)), 9) if known else 2.0), count

    def _of(count: int) -> tuple[int, int]:
        heldout, test = (round(share * count) for share in shares)
        return heldout, test

    best = min(range(2, FINEST + 1), key=missed)
    return best, *_of(best)


def split_bins(bins: np.ndarray, parts: tuple[int, int, int], fold: int) -> tuple[np.ndarray, ...]:
    """Positions of train, held-out and test: so many bins each, and the next ones for the next fold.

    So on any number of folds no group is test more than once more than another.
    """
    count, heldout, test = parts
    turned = (bins - fold * test) % count
    return (
        np.flatnonzero(turned >= test + heldout),
        np.flatnonzero((turned >= test) & (turned < test + heldout)),
        np.flatnonzero(turned < test),
    )
