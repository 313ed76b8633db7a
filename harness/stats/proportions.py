"""Shares of right answers: intervals, paired comparisons, and how many examples a comparison needs."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from harness.stats.components import crossed_mean, seed_means
from harness.stats.distributions import normal_quantile
from harness.stats.interval import Interval

FEWEST = 10
"""With fewer items of a kind (right, wrong, discordant) their variance says little: an inverted score test decides."""

# scipy.stats takes over a second to import, so the functions that need it import it themselves.


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927), without continuity correction.

    Raises:
        ValueError: if ``n`` is 0 or ``successes`` is not in 0..n.
    """
    if n < 1:
        raise ValueError("a proportion needs at least one item")
    successes, n = int(successes), int(n)
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} items")
    share, z = successes / n, float(ndtri(0.5 + 0.5 * confidence))
    # scipy's binomtest gives these very digits, but takes 100 times as long: it works out an exact p-value first
    centre = (2 * n * share + z**2) / (2 * (n + z**2))
    half = z / (2 * (n + z**2)) * math.sqrt(4 * n * share * (1 - share) + z**2)
    low = centre - half if successes else 0.0
    return Interval(share, low, centre + half if successes < n else 1.0, n)


def proportion_over_seeds(right: np.ndarray) -> Interval:
    """95 % interval of the mean of ``right`` [S, N]: right and wrong answers of S seeds to N items, NaN for none.

    Wilson's for one seed. Of several that of ``crossed_mean``, and no narrower than Wilson's of the mean where hardly
    an item is ever right, or ever wrong: there the answers do not vary, but more of them would.

    Raises:
        ValueError: if ``right`` is not a table of zeros and ones with at least one seed and one item.
    """
    right = np.asarray(right, np.float64)
    known = ~np.isnan(right)
    if right.ndim != 2 or not right.size or not np.isin(right[known], (0, 1)).all() or not known.any(axis=1).all():
        raise ValueError(f"right answers {right.shape} are no zeros and ones [seeds, items]")
    seeds, n = len(right), int(known.any(axis=0).sum())
    total = right.sum() / seeds if known.all() else n * float(seed_means(right).mean())
    alone = Interval(total / n, wilson(int(total), n).low, wilson(int(np.ceil(total)), n).high, n)
    if seeds == 1 or n == 1:
        return alone
    crossed = crossed_mean(right).interval().within(0.0, 1.0)
    if min((right == 1).any(axis=0).sum(), (right == 0).any(axis=0).sum()) >= FEWEST:
        return crossed
    return Interval(crossed.value, min(crossed.low, alone.low), max(crossed.high, alone.high), n)


def mcnemar_exact(candidate_correct: np.ndarray, reference_correct: np.ndarray) -> float:
    """Two-sided exact p-value that both are right equally often, from the items [N] where only one is right.

    1.0 where there is no such item. Source: McNemar 1947, with the binomial distribution in place of chi-squared.

    Raises:
        ValueError: if the two are not equally long.
    """
    from scipy.stats import binomtest

    candidate, reference = np.asarray(candidate_correct, bool), np.asarray(reference_correct, bool)
    if candidate.shape != reference.shape:
        raise ValueError(f"paired outcomes differ in shape: {candidate.shape} and {reference.shape}")
    gained, lost = int((candidate & ~reference).sum()), int((reference & ~candidate).sum())
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def paired_proportions(gained: int, lost: int, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of the difference of two paired proportions (Tango 1998), ``(gained - lost) / n``.

    It inverts the score test, so it has its level in small samples too, and does not shrink to nothing where the two
    never differ.

    Args:
        gained: items where only the candidate is right.
        lost: items where only the reference is right.
        n: all items.
        confidence: coverage of the interval.

    Raises:
        ValueError: for counts that are no whole numbers of ``n >= 1`` items.
    """
    from scipy.optimize import bisect

    if n < 1 or min(gained, lost) < 0 or gained + lost > n or gained != int(gained) or lost != int(lost):
        raise ValueError(f"{gained} gained and {lost} lost are no counts of {n} items")
    z = float(normal_quantile((1 - confidence) / 2))
    value = (gained - lost) / n
    low = -1.0 if lost == n else bisect(lambda d: paired_score(gained, lost, n, d) - z, -1.0, value)
    high = 1.0 if gained == n else bisect(lambda d: paired_score(gained, lost, n, d) + z, value, 1.0)
    return Interval(value, float(low), float(high), n)


def paired_score(gained: float, lost: float, n: int, difference: float) -> float:
    """Tango's score statistic of "the true difference is ``difference``": standard normal if it is, falling in it.

    Its square at 0 is McNemar's chi-squared. The counts may be means over seeds.
    """
    linear = (2 * n - gained + lost) * difference - gained - lost
    constant = -lost * difference * (1 - difference)
    root = math.sqrt(max(0.0, linear**2 - 8 * n * constant))
    only_reference = (root - linear) / (4 * n)  # its likeliest share, given difference
    variance = n * (2 * only_reference + difference * (1 - difference))
    distance = gained - lost - n * difference
    if variance <= 1e-12 * n:
        return math.copysign(math.inf, distance) if abs(distance) > 1e-9 * n else 0.0
    return distance / math.sqrt(variance)


def paired_power(
    n: int, margin: float, discordance: float, difference: float = 0.0, alpha: float = 0.05
) -> float:
    """Probability that ``n`` paired examples show the candidate not inferior by ``margin``, at one-sided ``alpha``.

    Args:
        n: how many examples.
        margin: the drop in accuracy that would still be accepted, >= 0.
        discordance: the share of examples on which exactly one of the two is right.
        difference: the true accuracy of the candidate minus the reference's.
        alpha: of the one-sided test.

    Raises:
        ValueError: for shares that cannot be, or a difference that is not above ``-margin``.
    """
    from statsmodels.stats.power import normal_power_het

    spread = _spread(margin, discordance, difference)
    return float(normal_power_het(difference + margin, n, alpha, *spread, alternative="larger"))


def examples_needed(
    margin: float, discordance: float, difference: float = 0.0, alpha: float = 0.05, power: float = 0.8
) -> int:
    """The fewest examples with which ``paired_power`` reaches ``power``; the arguments and errors are its.

    At 10 % discordance and equal models: 1,542 for a margin of 2 points, 6,179 for 1 point.
    """
    from statsmodels.stats.power import normal_sample_size_one_tail

    spread = _spread(margin, discordance, difference)
    return int(np.ceil(normal_sample_size_one_tail(difference + margin, power, alpha, *spread)))


def _spread(margin: float, discordance: float, difference: float) -> tuple[float, float]:
    """Standard deviation of one paired difference at ``-margin`` and at ``difference``."""
    if not (0 < discordance <= 1 and abs(difference) <= discordance and margin >= 0):
        raise ValueError(f"no models differ by {difference} at a discordance of {discordance}, margin {margin}")
    if difference + margin <= 0:
        raise ValueError(f"a difference of {difference} is not above {-margin}: more examples would not show it")
    at_margin = max(discordance, margin)  # models that far apart differ on at least as many examples
    return float(np.sqrt(at_margin - margin**2)), float(np.sqrt(discordance - difference**2))
