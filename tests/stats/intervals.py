"""What the tests ask of an interval."""

import math

import numpy as np


def bounds(interval):
    return interval.low, interval.high


def width(interval):
    return interval.high - interval.low


def covers(interval, truth):
    return interval.low <= truth <= interval.high


def assert_is_95_percent(hits):
    """Three standard errors of a binomial proportion, plus a point for what a small sample costs the bootstrap."""
    assert abs(np.mean(hits) - 0.95) < 3 * math.sqrt(0.95 * 0.05 / len(hits)) + 0.01
