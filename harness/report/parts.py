"""Scores by part of a task: bits per byte of each domain of text, or accuracy on each view of other examples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from harness.results.run import Run
from harness.results.scoring import known


@dataclass(frozen=True)
class Kind:
    """What a task is divided into, and what is measured there."""

    part: str
    prefix: str
    """What the names of these measures begin with."""
    unit: str
    better: int
    """The sign of a change for the better."""


DOMAINS = Kind("domain", "bits_per_byte/bytes_", "bits per byte", -1)
VIEWS = Kind("view", "accuracy/", "points", 1)


class Parts:
    """How the variants of one pool score on each part of the task."""

    def __init__(self, run: Run, kind: Kind, pool: str) -> None:
        self.run, self.kind, self.pool = run, kind, pool
        self.seeds = [str(seed) for seed in run.record["seeds"]]

    @property
    def base(self) -> str:
        """The pool's base, as a suite names it: no task vector added."""
        return self.variant("task_arithmetic/members=0,scale=0")

    def variant(self, name: str) -> str:
        """The full name of one of the pool's variants."""
        return name if self.pool == "main" else f"{self.pool}:{name}"

    @cached_property
    def _values(self) -> dict[tuple[str, str], np.ndarray]:
        variants, prefix = self.run.variants, self.kind.prefix
        of_pool = set(variants[variants["pool"] == self.pool]["variant"])
        spread = self._spread_of_each if self.run.splits_differ else self._spread
        found = {
            (name, metric.removeprefix(prefix)): spread(rows)
            for (name, metric), rows in self.run.measured.items()
            if name in of_pool and metric.startswith(prefix)
        }
        # With --limit, a seed's own examples may be none that a view has; a text may have been given probability 0.
        none = {key for key, values in found.items() if np.isnan(values).all(axis=1).any() or known(values) is None}
        return {key: values for key, values in found.items() if key not in none}

    def _spread(self, group: pd.DataFrame) -> np.ndarray:
        """The values of one part [seeds, documents]; all views have those of all test examples.

        An example that a view leaves out has the view's mean, and what the others differ from it is made larger in
        proportion: the mean is the same, and an interval from drawing examples for all views at once is that of the
        examples that are in the view.
        """
        values = group["value"].to_numpy(np.float64).reshape(len(self.seeds), -1)
        if self.kind is DOMAINS:
            return values
        places = group["document"].to_numpy().reshape(len(self.seeds), -1)
        mean = values.mean(axis=1, keepdims=True)
        count = self.run.record["task"]["splits"]["test"]
        spread = np.repeat(mean, count, axis=1)
        np.put_along_axis(spread, places, mean + (values - mean) * count / values.shape[1], axis=1)
        return spread

    def _spread_of_each(self, group: pd.DataFrame) -> np.ndarray:
        """As ``_spread`` where every seed has test examples of its own; NaN where one was not tested on an example."""
        spread = np.full(self._tested.shape, np.nan)
        for row, seed, tested in zip(spread, self.seeds, self._tested, strict=True):
            of_seed = group[group["seed"].astype(str) == seed]
            if len(of_seed):
                values = of_seed["value"].to_numpy(np.float64)
                row[tested] = mean = values.mean()
                row[of_seed["document"]] = mean + (values - mean) * tested.sum() / len(values)
        return spread

    @cached_property
    def _tested(self) -> np.ndarray:
        """Whether a seed was tested on an example [seeds, examples]."""
        examples, places = self.run.examples, self.run.places
        assert examples is not None
        tested = np.zeros((len(self.seeds), len(places)), bool)
        pairs = examples[["seed", "example_id"]].drop_duplicates().astype(str)
        tested[pairs["seed"].map(self.seeds.index), pairs["example_id"].map(places)] = True
        return tested

    @cached_property
    def names(self) -> list[str]:
        """The parts, sorted."""
        return sorted({part for _, part in self._values})

    def values(self, name: str, part: str) -> np.ndarray:
        """A variant's values on a part: the mean of these, [seeds, documents], is its score."""
        return self._values[name, part]

    def mean(self, name: str) -> np.ndarray:
        """A variant's values, mean over the parts, [seeds, documents]."""
        return np.mean([self.values(name, part) for part in self.names], axis=0)

    def measured(self, *names: str) -> bool:
        """Whether all these variants have values, on as many documents in every part."""
        if not self.names or any((name, part) not in self._values for name in names for part in self.names):
            return False
        return len({self.values(name, part).shape for name in names for part in self.names}) == 1

    def home_of(self, position: int) -> str | None:
        """The one part that a member of the pool was trained on, by its position."""
        members = self.run.record["pools"][self.pool]["seeds"][self.seeds[0]]["members"]
        groups: list[str] = next((m.get("groups", []) for m in members if m["name"] == f"m{position}"), [])
        return groups[0] if len(groups) == 1 and groups[0] in self.names else None


def parts_of(run: Run) -> list[Parts]:
    """The domains that a run on text has, and the views of each pool that has any."""
    pools = run.record["pools"]
    found = [Parts(run, DOMAINS, "main"), *(Parts(run, VIEWS, pool) for pool in pools)]
    return [parts for parts in found if parts.names]
