"""Critical values where one part of a variance is known well and the other from a few seeds only.

A mean over S seeds and N items has the variance v + tau: v, what the items have in common, is known from hundreds of
them; tau, what differs from seed to seed, from S - 1 degrees of freedom. That is the problem of Behrens and Fisher with
S - 1 and infinite degrees. Student's t with Welch's degrees of freedom covers 92 % in the place of 95 with three seeds,
where these have most of the variance. So the critical value is solved for, as the function of the estimated share of
tau with which the coverage is right whatever the true share (after Trickett and Welch 1954, Biometrika 41).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import gammaincinv

from harness.stats.distributions import (
    normal_above,
    normal_density,
    normal_quantile,
    student_above,
    student_quantile,
)

MANY_SEEDS = 40
"""With more of them, Student's t with Welch's degrees of freedom covers within 0.1 points."""

_SHARES = np.sin(np.linspace(0, np.pi / 2, 25)) ** 2
"""Estimated shares of tau at which the critical value is solved for: dense at either end."""

_QUANTILES = np.linspace(0, 4.5, 37)
"""Normal quantiles of the one-sided levels that are solved for; in between it is interpolated."""

_SMOOTH = 10.0
"""Weight of the bends of the critical value beside its relative errors of coverage: with less it swings."""


def reach(quantile: float, share: float, seeds: int) -> float:
    """How many estimated standard errors stand for a quantile >= 0 of the normal distribution.

    Args:
        quantile: of the one-sided level, 1.96 for an interval of 95 %.
        share: estimated share of the seeds in the variance of the mean, 0..1.
        seeds: at least 2.
    """
    if seeds > MANY_SEEDS:
        return float(_welch(share, seeds - 1, quantile))
    return float(np.interp(quantile, _QUANTILES, _at(share, seeds - 1)))


def quantile(standard_errors: float, share: float, seeds: int) -> float:
    """The other way round: the quantile that so many standard errors >= 0 stand for; no more than 4.5 is solved for."""
    if seeds > MANY_SEEDS:
        return float(normal_quantile(student_above(standard_errors, (seeds - 1) / max(share, 1e-9) ** 2)))
    return float(np.interp(standard_errors, _at(share, seeds - 1), _QUANTILES))


def _at(share: float, df: int) -> np.ndarray:
    """Values at this share, one for each of ``_QUANTILES``."""
    values = _solved(df)
    left = min(int(np.searchsorted(_SHARES, share, side="right")), len(_SHARES) - 1) - 1
    slopes = (values[:, left + 1] - values[:, left]) / (_SHARES[left + 1] - _SHARES[left])
    return np.asarray(slopes * (share - _SHARES[left]) + values[:, left])


@lru_cache
def _solved(df: int) -> np.ndarray:
    """Critical values [levels, shares]."""
    return np.maximum.accumulate([_solve(df, quantile) for quantile in _QUANTILES], axis=0)


def _welch(share: np.ndarray | float, df: int, quantile: np.ndarray | float) -> np.ndarray:
    return np.asarray(student_quantile(normal_above(quantile), df / np.maximum(share, 1e-9) ** 2))


def _solve(df: int, quantile: float) -> np.ndarray:
    """The critical value at each of ``_SHARES``, by Gauss-Newton on its logarithm from Welch's.

    Of a true share s of the seeds the estimate of tau is s x with x ~ chi2(df) / df, and the coverage is the mean over
    x of P(|Z| < h(share) sqrt(1 - s + s x)). At shares 0 and 1 the values are the normal's and Student's.
    """
    most = float(student_quantile(normal_above(quantile), df))
    if df == 1 or not quantile:
        # Two seeds leave no smooth solution. The half-widths of both parts, squared and added (Graybill and Wang 1980),
        # cover as much as they say or more.
        return np.sqrt((1 - _SHARES) * quantile**2 + _SHARES * most**2)
    x = 2 * gammaincinv(df / 2, (np.arange(300) + 0.5) / 300) / df  # quantiles of chi2(df) / df
    true = np.sin(np.linspace(0, np.pi / 2, 40))[1:-1, None] ** 2
    spread = np.sqrt(1 - true + true * x)  # [true shares, x]: the estimated standard error over the true one
    hats = _hats(true * x / spread**2)
    logs = np.log(_welch(_SHARES, df, quantile))
    logs[0], logs[-1] = np.log(quantile), np.log(most)
    nominal = 2 * normal_above(quantile)
    bend = np.diff(np.eye(len(_SHARES)), 2, axis=0)
    for _ in range(12):
        reach = np.exp(hats @ logs) * spread
        missed = 2 * normal_above(reach).mean(axis=1) / nominal - 1
        slope = ((-2 * normal_density(reach) * reach)[..., None] * hats).mean(axis=1) / nominal
        system = np.concatenate([slope, _SMOOTH * bend])[:, 1:-1]
        wanted = -np.concatenate([missed, _SMOOTH * (bend @ logs)])
        logs[1:-1] += np.clip(np.linalg.lstsq(system, wanted, rcond=None)[0], -0.5, 0.5)
    return np.maximum(np.exp(logs), quantile)


def _hats(shares: np.ndarray) -> np.ndarray:
    """Weights with which values at ``_SHARES`` are interpolated linearly: [..., len(_SHARES)]."""
    right = np.clip(np.searchsorted(_SHARES, shares), 1, len(_SHARES) - 1)
    weight = (shares - _SHARES[right - 1]) / (_SHARES[right] - _SHARES[right - 1])
    hats = np.zeros((*shares.shape, len(_SHARES)))
    np.put_along_axis(hats, right[..., None], weight[..., None], axis=-1)
    np.put_along_axis(hats, right[..., None] - 1, 1 - weight[..., None], axis=-1)
    return hats
