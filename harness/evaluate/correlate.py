"""The ensemble-versus-average study: subsets of a pool, each as an ensemble and as one averaged model."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from harness import stats
from harness.evaluate.heldout import predict_module
from harness.evaluate.predictions import CachedPredictions
from harness.merging.batchnorm import recalibrate, shared_statistics
from harness.merging.guards import check_mergeable
from harness.merging.subsets import FlatModels
from harness.models.weights import load_module
from harness.systems.fitting import accuracy, nll, uniform
from harness.systems.parts import MemberPart
from harness.systems.rules import mix_linear, mix_log_linear
from harness.systems.systems import batches_of
from harness.types import Member, NotApplicable, Split, check_tokens

MIXES = {"linear": mix_linear, "log_linear": mix_log_linear}
METRICS = {"accuracy": accuracy, "nll": nll}
COEFFICIENTS = ("pearson", "spearman", "kendall")


def choose_subsets(members: int, sizes: Sequence[int], at_most: int) -> list[tuple[int, ...]]:
    """All subsets of these sizes, or a fixed draw of ``at_most`` of them that gives each size its share."""
    counts = {size: math.comb(members, size) for size in sorted(set(sizes)) if size <= members}
    if sum(counts.values()) <= at_most:
        return [subset for size in counts for subset in itertools.combinations(range(members), size)]
    rng = np.random.default_rng(0)
    chosen: list[tuple[int, ...]] = []
    left = at_most
    by_count = sorted(counts.items(), key=lambda item: item[1])
    for done, (size, count) in enumerate(by_count):  # a small size leaves its unused share to the others
        share = min(count, math.ceil(left / (len(counts) - done)))
        chosen += _drawn(rng, members, size, share)
        left -= share
    return sorted(chosen, key=lambda subset: (len(subset), subset))


MOST_COUNTED = 10**9
"""Subsets of a size, of which positions are drawn; of more, as many are drawn twice as good as never."""


def _drawn(rng: np.random.Generator, members: int, size: int, share: int) -> list[tuple[int, ...]]:
    """``share`` different subsets of a size; of none of the others is a list made."""
    count = math.comb(members, size)
    if count <= MOST_COUNTED:
        return [_subset_at(int(each), members, size) for each in rng.choice(count, size=share, replace=False)]
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < share:
        drawn[tuple(sorted(rng.choice(members, size=size, replace=False).tolist()))] = None
    return list(drawn)


def _subset_at(position: int, members: int, size: int) -> tuple[int, ...]:
    """The subset at a position among all of its size, in the order of ``itertools.combinations``; none is listed."""
    subset: list[int] = []
    for member in range(members):
        if size == len(subset):
            break
        begun_so = math.comb(members - member - 1, size - len(subset) - 1)  # those that have this member next
        if position < begun_so:
            subset.append(member)
        else:
            position -= begun_so
    return tuple(subset)


def study(
    members: Sequence[Member],
    cached: CachedPredictions,
    train: Split,
    test: Split,
    subsets: Sequence[Sequence[int]],
    rule: str,
) -> dict[str, Any]:
    """The rows of ``ensembles_and_averages`` as a JSON record, or why there are none; an infinite NLL is None."""
    parts = [MemberPart(member, torch.device(cached.device)) for member in members]
    try:
        check_tokens(parts, test)
        stacked = cached.stacked(parts, test)
        begin = time.perf_counter()
        table = ensembles_and_averages(members, stacked, train, test, subsets, rule)
    except NotApplicable as reason:
        return {"status": "not_applicable", "reason": str(reason)}
    seconds = time.perf_counter() - begin
    known = {name: [None if value == math.inf else value for value in of] for name, of in table.to_dict("list").items()}
    return {"status": "ok", "seconds": seconds, "rows": known}


def ensembles_and_averages(
    members: Sequence[Member], stacked: Tensor, train: Split, test: Split, subsets: Sequence[Sequence[int]], rule: str
) -> pd.DataFrame:
    """Test scores of every subset's ensemble, average and members: the columns of ``results.CORRELATION_COLUMNS``.

    Args:
        members: the pool.
        stacked: their log-probabilities [M, N, C] on test.
        train: for the BatchNorm statistics of averages.
        test: what is scored.
        subsets: positions of members.
        rule: "linear" or "log_linear", with uniform weights.

    Raises:
        NotApplicable: if the members' weights cannot be averaged, or there is no subset.
    """
    if not subsets:
        raise NotApplicable(f"no subset of its {len(members)} members has one of the sizes")
    check_mergeable(members)
    weights = [member.weights for member in members]
    models, shared = FlatModels(load_module(members[0]), weights), shared_statistics(weights)
    singles = {name: [score(log_probs, test.labels) for log_probs in stacked] for name, score in METRICS.items()}
    rows = []
    for subset, module in zip(subsets, models.averages(subsets), strict=True):
        recalibrate(module, batches_of(train.inputs), keep=shared)
        averaged = predict_module(module, test)
        # in parts: of a large vocabulary, the predictions of all members fit memory once, not several times
        mixed = [MIXES[rule](part[list(subset)], uniform(len(subset))) for part in stacked.split(250, dim=1)]
        ensemble = torch.cat(mixed)
        for name, score in METRICS.items():
            rows.append(
                {
                    "subset": "+".join(map(str, subset)),
                    "size": len(subset),
                    "metric": name,
                    "ensemble": score(ensemble, test.labels),
                    "average": score(averaged, test.labels),
                    "members": float(np.mean([singles[name][k] for k in subset])),
                }
            )
    return pd.DataFrame(rows)


def correlations(study: pd.DataFrame) -> list[dict[str, Any]]:
    """Pearson, Spearman and Kendall of ensemble against average, for each pool, metric and seed, and over all seeds.

    Over all seeds, both scores are first centred within each seed, so that the difference between seeds, which every
    subset of a seed shares, is not taken for a correlation; members of different seeds are different members. There is
    none where a subset has no score, for it would be of the others alone.
    """
    found = []
    for (pool, metric), group in study.groupby(["pool", "metric"], sort=True):
        seeds = sorted(set(group["seed"]))
        parts = {str(seed): group[group["seed"] == seed] for seed in seeds}
        centred = group.copy()
        for column in ("ensemble", "average"):
            centred[column] -= group.groupby("seed")[column].transform("mean")
        for seed, rows in {**parts, "all": centred if len(seeds) > 1 else group}.items():
            found.append({"pool": pool, "metric": metric, "seed": seed, **_correlation(rows)})
    return found


def _correlation(rows: pd.DataFrame) -> Mapping[str, Any]:
    names = [{f"{s}/{k}" for k in subset.split("+")} for s, subset in zip(rows["seed"], rows["subset"], strict=True)]
    members = sorted(set().union(*names))
    if rows[["average", "ensemble"]].isna().any(axis=None):
        none = {name: {"value": None, "low": None, "high": None} for name in COEFFICIENTS}
        return {"n": len(rows), "members": len(members), "draws": 0, "draws_used": 0, **none}
    membership = np.array([[name in subset for name in members] for subset in names])
    result = stats.correlation(rows["average"].to_numpy(), rows["ensemble"].to_numpy(), membership)
    values: dict[str, Any] = {key: getattr(result, key) for key in ("n", "members", "draws", "draws_used")}
    for name in COEFFICIENTS:
        interval = getattr(result, name)
        bounds = {"value": interval.value, "low": interval.low, "high": interval.high}
        values[name] = {key: value if math.isfinite(value) else None for key, value in bounds.items()}
    return values
