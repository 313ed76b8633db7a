"""What a run may say of all its variants at once: differences from their references, verdicts that hold for the whole
table, and the best of all with its score corrected for having been picked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from harness import stats
from harness.results.metric import Column
from harness.stats.distributions import normal_above, student_quantile
from harness.stats.interval import LEVEL, Interval
from harness.stats.proportions import FEWEST, paired_proportions, paired_score
from harness.stats.simultaneous import UnitMeans, best_set, by_cluster, picked, simultaneous, unit_means

THESE, LIKE_THESE = "these models", "models like these"
"""What a comparison speaks of. These models: the mean over the seeds' very models, the examples being a sample. Models
like these: other seeds of the same recipe as well."""

OWN, POOLS = "own pool", "pools"
"""What is compared: a combination with the reference of its own pool, or two pools' references, whose training differs;
the second is no verdict on a method and has none."""

ALPHA = 1 - LEVEL
SHARE_MARGIN, LOSS_MARGIN = 0.005, 0.01
"""Of equivalence, where a suite gives none: half a point of a share, 1 % of the reference's loss."""

Word = Literal["better", "worse", "equivalent", "unclear"]


@dataclass(frozen=True)
class Scored:
    """One metric of every variant on the same examples, or documents."""

    column: Column
    tables: Mapping[str, np.ndarray]
    """By variant: [seeds, examples], finite; NaN, the same in all, where a seed has no such example."""
    clusters: Sequence[str] = ()
    """Of each example, the cluster that counts as one; empty: every example counts as one."""
    same: Collection[str] = ()
    """Variants that say of every example just what their reference does: one system in two forms."""
    margin: float | str | None = None
    """Within which differences are equivalent, in the metric's unit, or a share of the reference's ("1 %")."""

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return self.column.sign

    def units(self, variant: str) -> np.ndarray:
        """A variant's table [seeds, units]."""
        table = self.tables[variant]
        return by_cluster(table, self.clusters) if len(self.clusters) else table

    def equivalent_within(self, reference: float) -> float:
        """The margin, given the reference's score."""
        if isinstance(self.margin, str):
            return abs(reference) * float(self.margin.removesuffix("%")) / 100
        if self.margin is not None:
            return self.margin
        return SHARE_MARGIN if self.column.is_share else LOSS_MARGIN * abs(reference)


def comparisons(
    scored: Scored, references: Mapping[str, str], pools: Mapping[str, str], seed: str
) -> Iterator[dict[str, Any]]:
    """The rows of comparisons.parquet of one metric on one seed, or on all of them, and then in both scopes.

    Args:
        scored: the metric, of all variants that are compared.
        references: of each variant, the one that it is compared with, in its own pool.
        pools: of each other pool's reference, the main pool's.
        seed: what the rows are of.
    """
    references, pools = (dict(sorted(pairs.items())) for pairs in (references, pools))  # draws go by their order
    names = {*references, *references.values(), *pools, *pools.values()}
    units = {name: scored.units(name) for name in sorted(names)}
    these = list(_of_these(scored, units, references, pools, seed))
    yield from these
    if these and min(map(_least_units, units.values())) > 1:
        yield from _of_likes(scored, units, these)


def _is_sample(table: np.ndarray) -> bool:
    """Whether there are two units, and every seed has one."""
    known = ~np.isnan(table)
    return bool(known.any(axis=1).all()) and int(known.any(axis=0).sum()) > 1


def _least_units(table: np.ndarray) -> int:
    """Of any seed, where there are several."""
    return int((~np.isnan(table)).sum(axis=1).min()) if len(table) > 1 else 0


def _of_these(
    scored: Scored, units: Mapping[str, np.ndarray], references: Mapping[str, str], pools: Mapping[str, str], seed: str
) -> Iterator[dict[str, Any]]:
    names = list(units)
    if not names or not _is_sample(units[names[0]]):
        return
    means = unit_means(list(units.values()))
    outcomes = _are_outcomes(scored)
    grain = 1 / (len(units[names[0]]) * means.units) if outcomes and not len(scored.clusters) else 0.0
    for kind, pairs in ((OWN, references), (POOLS, pools)):
        if not pairs:
            continue
        ours, theirs = ([names.index(name) for name in side] for side in (pairs.keys(), pairs.values()))
        apart = UnitMeans(means.values[ours] - means.values[theirs], means.shares[ours] - means.shares[theirs])
        found = simultaneous(apart, grain=grain)
        for at, (name, reference) in enumerate(pairs.items()):
            joint = (found.low, found.high, found.low_together, found.high_together, found.p, found.p_adjusted)
            told = tuple(float(each[at]) for each in joint)
            if outcomes and name not in scored.same:
                told = _of_few(units[name] - units[reference], told, found.level)
            values = (apart.values[at], *told)
            margin = scored.equivalent_within(float(means.values[theirs[at]]))
            yield _row(scored, name, reference, kind, seed, THESE, values, margin, means.units)


def _of_few(difference: np.ndarray, told: tuple[float, ...], level: float) -> tuple[float, ...]:
    """What is told of a share, by its score test where hardly any item changes it.

    Args:
        difference: [seeds, items] of right and wrong, or of their means in clusters.
        told: the interval alone and together, and the p-value alone and adjusted, by how much the items vary.
        level: of each interval, where all of them hold together.

    Returns:
        The same six: the intervals are those of the score test, and the p-values are no smaller than its.
    """
    if int(np.nan_to_num(difference).any(axis=0).sum()) >= FEWEST:
        return told
    items = difference.shape[1]
    largest = max(1.0, float(np.nanmax(np.abs(difference))))  # a cluster may count as several
    gained, lost = (float(np.nanmean(np.maximum(sign * difference, 0), axis=1).mean()) * items / largest
                    for sign in (1, -1))  # fmt: skip
    fewer, more = (int(gained + 1e-9), int(np.ceil(lost - 1e-9))), (int(np.ceil(gained - 1e-9)), int(lost + 1e-9))
    ends = []
    for each in (LEVEL, level):
        low, high = paired_proportions(*fewer, items, each).low, paired_proportions(*more, items, each).high
        ends += [max(-1.0, low * largest), min(1.0, high * largest)]
    p = 2 * float(normal_above(max(0.0, paired_score(*fewer, items, 0.0), -paired_score(*more, items, 0.0))))
    return (*ends, max(p, told[4]), max(min(1.0, p * ALPHA / (1 - level)), told[5]))


def _are_outcomes(scored: Scored) -> bool:
    """Whether each example is right or wrong."""
    return all(np.isin(table[~np.isnan(table)], (0, 1)).all() for table in scored.tables.values())


def _of_likes(
    scored: Scored, units: Mapping[str, np.ndarray], these: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Seeds and examples as samples: too few seeds for joint draws, so each by itself, and Holm for all.

    Nothing is surer of models like these than of these models, so where few examples decide nothing there, none do.
    """
    for kind in (OWN, POOLS):
        rows = [row for row in these if row["kind"] == kind]
        means = [stats.crossed_mean(units[row["variant"]] - units[row["against"]]) for row in rows]
        p = [max(row["p"], 2 * min(mean.p_below(0.0), 1 - mean.p_below(0.0)))
             for row, mean in zip(rows, means, strict=True)]  # fmt: skip
        for row, mean, own, holm in zip(rows, means, p, stats.holm(p), strict=True):
            alone = _wider(row["low"], mean.interval(LEVEL), row["high"])
            together = _wider(row["low_together"], mean.interval(1 - ALPHA / len(rows)), row["high_together"])
            values = (mean.value, *alone, *together, own, max(holm, row["p_adjusted"]))
            yield _row(scored, row["variant"], row["against"], kind, row["seed"], LIKE_THESE, values, row["margin"],
                       mean.items)  # fmt: skip


def _wider(low: float | None, interval: Interval, high: float | None) -> tuple[float, float]:
    """The interval, stretched to these bounds; unknown where they are."""
    return (np.nan, np.nan) if low is None or high is None else (min(low, interval.low), max(high, interval.high))


def _row(
    scored: Scored, variant: str, against: str, kind: str, seed: str, scope: str, values: Sequence[float],
    margin: float, units: int,
) -> dict[str, Any]:  # fmt: skip
    difference, low, high, low_together, high_together, p, p_adjusted = map(float, values)
    most = scored.column.most - scored.column.least  # few seeds give bounds that no difference can pass
    low, low_together = max(low, -most), max(low_together, -most)
    high, high_together = min(high, most), min(high_together, most)
    word: str = verdict(scored.sign, low_together, high_together, p_adjusted, margin) if kind == OWN else ""
    return {
        "variant": variant, "against": against, "kind": kind, "metric": scored.column.name, "seed": seed,
        "scope": scope, "difference": difference, "low": _known(low), "high": _known(high),
        "low_together": _known(low_together), "high_together": _known(high_together), "p": p, "p_adjusted": p_adjusted,
        "margin": margin, "verdict": word, "n": units,
    }  # fmt: skip


def _known(bound: float) -> float | None:
    """A bound as a JSON value."""
    return bound if np.isfinite(bound) else None


def verdict(sign: int, low: float, high: float, p_adjusted: float, margin: float) -> Word:
    """The comparison in a word, from the interval and the p-value that hold for the whole table.

    ``better`` and ``worse`` need ``p_adjusted`` below .05; ``equivalent`` an interval within the margin. A NaN bound is
    ``unclear``.
    """
    if not low <= high:
        return "unclear"
    middle = sign * (low + high)
    if p_adjusted < ALPHA and middle:
        return "better" if middle > 0 else "worse"
    return "equivalent" if -margin <= low and high <= margin else "unclear"


def best(scored: Scored) -> dict[str, Any] | None:
    """Which variant scores best, the score corrected for the pick with its interval, and all that may be the best.

    Returns:
        ``variant``, ``value``, ``corrected``, ``low``, ``high`` and ``set``, the names of the confidence set; None
        where a single example says nothing of others.
    """
    names = sorted(scored.tables)
    units = [scored.sign * scored.units(name) for name in names]
    if not units or not _is_sample(units[0]):
        return None
    means = unit_means(units)
    winner, corrected = picked(means)
    half = float(student_quantile(ALPHA / 2, means.units - 1) * means.standard_errors[winner])
    corrected *= scored.sign
    return {
        "variant": names[winner],
        "value": scored.sign * float(means.values[winner]),
        "corrected": corrected,
        "low": max(scored.column.least, corrected - half),
        "high": min(scored.column.most, corrected + half),
        "set": [name for name, kept in zip(names, best_set(means), strict=True) if kept],
    }
