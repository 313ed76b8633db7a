"""How often the intervals of a curve's numbers cover: `python -m tests.evaluate.simulate_curves [RUNS [FILE]]` prints
the rates, and keeps them in a JSON file.

Models and routers of which the true scores are known: an example's difficulty is shared, and every model and the
router's doubt have noise of their own. Two minutes for the 1,000 runs of the default.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
from scipy.stats import multivariate_normal, norm

from harness.evaluate.curves import aiq, apgr, cpt
from harness.evaluate.operating import Curve, Measured, Point, measured_mean
from harness.evaluate.oracle import luck_corrected, oracle

SHARED = 0.8
"""The share of the variance of a margin that is the example's."""
SIZES = np.arange(1.0, 9.0)
SETTINGS = {
    "rising": np.array([0.900, 0.912, 0.919, 0.924, 0.927, 0.929, 0.930, 0.9305]),
    "straight": np.linspace(0.90, 0.93, 8),
    "flat": np.full(8, 0.92),
    "with dips": np.array([0.92, 0.90, 0.925, 0.915, 0.93, 0.92, 0.933, 0.93]),
}
"""Accuracies of ensembles of growing size; those of equal ones are the hardest: every bend of the hull is noise."""
WEAK, STRONG = 0.80, 0.90
SHARES = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
WANTED = 0.5


def right(rng: np.random.Generator, accuracies: np.ndarray, examples: int) -> np.ndarray:
    """Answers [V, N], right (1) or wrong (0), with these accuracies in the mean."""
    return (_margins(rng, accuracies, examples) > 0).astype(np.float64)


def _margins(rng: np.random.Generator, accuracies: np.ndarray, examples: int) -> np.ndarray:
    noise = np.sqrt(SHARED) * rng.standard_normal(examples)
    noise = noise + np.sqrt(1 - SHARED) * rng.standard_normal((len(accuracies), examples))
    return np.asarray(norm.ppf(accuracies)[:, None] - noise)


def sizes(rng: np.random.Generator, accuracies: np.ndarray, examples: int) -> Curve:
    """Ensembles of growing size."""
    answers = right(rng, accuracies, examples)
    return Curve([Point.of(f"{c:g}", row, c) for c, row in zip(SIZES, answers, strict=True)])


def router(rng: np.random.Generator, examples: int, *, skill: float) -> Curve:
    """A router between a weak and a strong model that calls the strong one where it has most doubt of the weak one.

    ``skill`` 0 knows nothing and 1 the weak model's margin; its thresholds are fixed, so that its shares vary too.
    """
    margins = _margins(rng, np.array([WEAK, STRONG]), examples)
    weak, strong = (margins > 0).astype(np.float64)
    doubt = skill * (norm.ppf(WEAK) - margins[0]) + np.sqrt(1 - skill**2) * rng.standard_normal(examples)
    points = []
    for share in SHARES:
        called = (doubt > norm.isf(share)).astype(np.float64)
        points.append(Point.of(f"{share:g}", np.where(called > 0, strong, weak), 1 + 9 * called, called))
    return Curve(points, weak=Point.of("weak", weak, 1.0), strong=Point.of("strong", strong, 10.0))


@lru_cache
def true_router(skill: float) -> tuple[float, float]:
    """The APGR and CPT of the router on all examples: its doubt and the models' noise are normal together."""
    scores = []
    for share in SHARES:
        own, other = ((norm.ppf(accuracy), norm.isf(share), rho) for accuracy, rho in
                      ((WEAK, skill), (STRONG, skill * SHARED)))  # fmt: skip
        scores.append(_both(*own) + STRONG - _both(*other))  # the weak one right and kept, or the strong one and called
    of = np.array(SHARES), np.array(scores), WEAK, STRONG
    return apgr(*of), cpt(WANTED, *of)


def _both(first: float, second: float, correlation: float) -> float:
    """The chance that two standard normal variables are both below these."""
    covariance = [[1.0, correlation], [correlation, 1.0]]
    return float(multivariate_normal.cdf([first, second], mean=[0, 0], cov=covariance))


MEMBERS = np.array([0.90, 0.91, 0.915, 0.92])
COSTS = np.array([1.0, 1.0, 2.0, 4.0])


@lru_cache
def true_oracle() -> tuple[float, float]:
    """The oracle's score and its luck-corrected one on all examples, from the chance of each set of right models."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    alone = norm.cdf((norm.ppf(MEMBERS)[:, None] - np.sqrt(SHARED) * nodes) / np.sqrt(1 - SHARED))  # [M, nodes]
    corrected, none = 0.0, 0.0
    sets = np.array(list(product((0, 1), repeat=len(MEMBERS))))
    chances = np.array([float((np.where(each[:, None], alone, 1 - alone).prod(axis=0) * weights).sum())
                        for each in sets]) / weights.sum()  # fmt: skip
    for number in range(len(MEMBERS) + 1):
        group = sets.sum(axis=1) == number
        if not number:
            none = float(chances[group].sum())
            continue
        among = np.where(sets[group], COSTS, np.inf)
        chosen = among == among.min(axis=1, keepdims=True)
        chosen = chosen / chosen.sum(axis=1, keepdims=True)
        corrected += float((chances[group] @ chosen) @ (chances[group] @ sets[group]) / chances[group].sum())
    return 1 - none, corrected


def covers(found: Measured, truth: float) -> bool:
    """Whether the truth is in the interval; an upper end that there is not is beyond all."""
    assert found.low is not None, found.why
    return found.low <= truth and (found.high is None or truth <= found.high)


def one_run(rng: np.random.Generator, examples: int) -> Counter[str]:
    """Which intervals cover, of one sample of each setting."""
    found: Counter[str] = Counter()
    for name, accuracies in SETTINGS.items():
        found[f"AIQ, {name}"] += covers(sizes(rng, accuracies, examples).aiq(), aiq(SIZES, accuracies))
    for skill in (0.0, 0.6):
        curve, (average, threshold) = router(rng, examples, skill=skill), true_router(skill)
        what = f"a router of skill {skill:g}"
        found[f"APGR, {what}"] += covers(curve.apgr(), average)
        found[f"CPT({WANTED:g}), {what}"] += covers(curve.cpt(WANTED), threshold)
        if not skill:
            found["APGR, a random router, 0.5"] += covers(curve.apgr(), 0.5)
    answers = right(rng, MEMBERS, examples)
    for what, values, truth in zip(("oracle", "luck-corrected oracle"),
                                   (oracle(answers, COSTS)[0], luck_corrected(answers, COSTS)), true_oracle(),
                                   strict=True):  # fmt: skip
        found[what] += covers(measured_mean(values[None]), truth)
    return found


def rates(runs: int, examples: int, seed: int = 0) -> dict[str, float]:
    """The share of the runs in which each interval covers."""
    rng = np.random.default_rng(seed)
    total: Counter[str] = Counter()
    for _ in range(runs):
        total.update(one_run(rng, examples))
    return {name: value / runs for name, value in total.items()}


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    found = {str(examples): rates(count, examples) for examples in (500, 2_000)}
    for size, of_size in found.items():
        for name, rate in of_size.items():
            print(f"{rate:10.3f}  {size} examples: {name}")
    for path in sys.argv[2:]:
        Path(path).write_text(json.dumps({"runs": count, "coverage": found}, indent=1) + "\n")
