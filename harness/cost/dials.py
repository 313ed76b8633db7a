"""Where the settings of a system's dial, which held-out gave, land on test: outcomes and cost of every example."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from harness.cost.relative import FLOPS, costs_by_row
from harness.evaluate import outcomes, predictions
from harness.evaluate.predictions import CachedPredictions, said_by
from harness.store import read_json, write_json
from harness.systems.deciding import why_undecided
from harness.types import Combination, Split

TABLE, RECORD = "settings.safetensors", "settings.json"
COST = "cost"


def makers() -> tuple[str, ...]:
    """The code behind a table of settings."""
    return (__name__, *predictions.MAKERS, *outcomes.makers())


@dataclass(frozen=True, eq=False)
class Settings:
    """The settings of one system on test, from the cheapest to the dearest on held-out."""

    outcomes: dict[str, np.ndarray]
    """[T, N] by name, as ``outcomes.tabulate`` has them."""
    cost: np.ndarray
    """[T, N] of every example, in ``unit``."""
    unit: str
    """As ``relative.costs_by_row`` has it."""

    def __len__(self) -> int:
        return len(self.cost)

    def save(self, folder: Path) -> None:
        """Write them to an existing folder."""
        tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in self.outcomes.items()}
        save_file({**tensors, COST: torch.from_numpy(self.cost)}, folder / TABLE)
        write_json(folder / RECORD, {"unit": self.unit})

    @staticmethod
    def load(folder: Path) -> Settings:
        """What ``save`` wrote."""
        tables = {name: tensor.numpy() for name, tensor in load_file(folder / TABLE).items()}
        return Settings(tables, tables.pop(COST), read_json(folder / RECORD)["unit"])


def settings_of(combination: Combination, test: Split, cached: CachedPredictions) -> Settings:
    """Every setting of a combination's dial on a split, from predictions that are made once.

    What deciding takes is in the cost, where that is operations. Empty for a system without a dial, or one that cannot
    be told from predictions (a router of inputs, or what decides by choices where the split has none).
    """
    dial = combination.dial() if combination.replays and not why_undecided(combination, test) else ()
    if not dial:
        return Settings({}, np.zeros((0, len(test)), np.float32), "")
    said = said_by(combination.parts(), test, cached)
    each, unit = costs_by_row(combination.parts(), test)
    tables, costs = [], []
    for setting in dial:
        log_probs, calls = setting.replay(said)
        tables.append(outcomes.tabulate(log_probs.numpy(), test.labels.numpy(), says=combination.says))
        deciding = setting.deciding if unit == FLOPS else 0.0
        costs.append((calls * each).sum(dim=1).numpy() + deciding)
    columns = {str(name): np.stack([table[name].to_numpy(np.float32) for table in tables]) for name in tables[0]}
    return Settings(columns, np.stack(costs).astype(np.float32), unit)
