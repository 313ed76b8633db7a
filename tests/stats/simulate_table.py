"""How often a table of variants is wrong: `python -m tests.stats.simulate_table [RUNS [FILE]]` prints the rates, and
keeps them in a JSON file.

A hundred variants and a reference on one set of examples, as models of one pool are: an example's difficulty is
shared, the rest is each model's own. Some minutes for the 2,000 runs of the default.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.stats import norm

from harness.stats.simultaneous import best_set, picked, simultaneous, unit_means

VARIANTS, EXAMPLES = 100, 10_000
SHARED = 0.8
"""The share of the variance of a margin that is the example's: some 5 % of the examples are discordant."""


def margins(rng: np.random.Generator, accuracies: np.ndarray, examples: int) -> np.ndarray:
    """[V, N]: right where positive, with these accuracies in the mean."""
    noise = np.sqrt(SHARED) * rng.standard_normal(examples, np.float32)
    noise = noise + np.sqrt(1 - SHARED) * rng.standard_normal((len(accuracies), examples), np.float32)
    return norm.ppf(accuracies).astype(np.float32)[:, None] - noise


def outcomes(margin: np.ndarray, score: str) -> list[np.ndarray]:
    """Tables [1, N] of right answers, or of losses with the long tail that they have."""
    values = margin > 0 if score == "accuracy" else np.logaddexp(0, -3 * margin)
    return [row[None] for row in values.astype(np.float32)]


def one_run(rng: np.random.Generator, *, variants: int, examples: int, accuracy: float = 0.95) -> Counter[str]:
    """What went wrong (or right) in one table of equal variants, in one with a gain, and in one with unequal ones."""
    found: Counter[str] = Counter()
    others = np.arange(1, variants + 1)
    draws = 2_000
    equal = margins(rng, np.full(variants + 1, accuracy), examples)
    for score in ("accuracy", "nll"):
        means = unit_means(outcomes(equal, score))
        grain = 1 / examples if score == "accuracy" else 0.0
        seed = int(rng.integers(2**31))
        apart = simultaneous(means.minus(0).of(others), grain=grain, draws=draws, seed=seed)
        told = (apart.low_together > 0) | (apart.high_together < 0)
        found[f"{score}: any verdict of equal variants"] += bool(told.any())
        found[f"{score}: the same, uncorrected"] += bool(((apart.low > 0) | (apart.high < 0)).any())
        if score == "accuracy":
            _, corrected = picked(means, repeats=20, seed=seed)
            found["winner's score, points too high"] += 100 * float(means.values.max() - accuracy)
            found["winner's corrected score, points too high"] += 100 * float(corrected - accuracy)

    # one variant a point better; one just not equivalent; the others spread over a point
    truth = np.full(variants + 1, accuracy)
    truth[1] += 0.01
    truth[2] -= 0.005
    truth[3:] -= np.linspace(0, 0.01, variants - 2)
    means = unit_means(outcomes(margins(rng, truth, examples), "accuracy"))
    apart = simultaneous(means.minus(0).of(others), grain=1 / examples, draws=draws, seed=1)
    found["a planted gain of 1 point is found"] += bool(apart.low_together[0] > 0)
    inside = (apart.low_together >= -0.005) & (apart.high_together <= 0.005)
    outside = np.abs(truth[1:] - accuracy) >= 0.005 - 1e-12
    found["equivalent is said wrongly of any"] += bool((inside & outside).any())
    found["equivalent is said of an equal one"] += bool(inside[2])
    near = margins(rng, accuracy - np.linspace(0, 0.004, variants), examples)
    several = unit_means(outcomes(near, "accuracy"))
    kept = best_set(several, draws=1_000, seed=1)
    found["the set of the best has the best"] += bool(kept[0])
    found["size of the set of the best"] += int(kept.sum())
    return found


def rates(runs: int, *, variants: int = VARIANTS, examples: int = EXAMPLES, seed: int = 0) -> dict[str, float]:
    """The mean over the runs of each of these."""
    rng = np.random.default_rng(seed)
    total: Counter[str] = Counter()
    for _ in range(runs):
        total.update(one_run(rng, variants=variants, examples=examples))
    return {name: value / runs for name, value in total.items()}


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    found = rates(count)
    for name, rate in found.items():
        print(f"{rate:10.4f}  {name}")
    for path in sys.argv[2:]:
        settings = {"runs": count, "variants": VARIANTS, "examples": EXAMPLES}
        Path(path).write_text(json.dumps(settings | {"rates": found}, indent=1) + "\n")
