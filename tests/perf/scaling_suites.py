"""Suites of any size that are cheap to make: rules over predictions, and soups of tiny networks in folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from harness.models.architectures import build
from harness.models.weights import save_network
from harness.types import Architecture

CLASSES, HELDOUT = 4, 200
NETWORK = Architecture("mlp", (("classes", 10), ("hidden", 2), ("side", 8)))


def of_predictions(folder: Path, members: int, variants: int, examples: int) -> Path:
    """A suite of linear ensembles, each with weights of its own, over members that are files of random predictions.

    Args:
        folder: that is made for it.
        members: of the pool.
        variants: with the reference.
        examples: of the test split.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    labels, ids = rng.integers(CLASSES, size=HELDOUT + examples), np.arange(HELDOUT + examples)
    table = pd.DataFrame({"id": ids.astype(str), "label": [f"c{label}" for label in labels]})
    table[:HELDOUT].to_parquet(folder / "heldout.parquet", index=False)
    table[HELDOUT:].to_parquet(folder / "test.parquet", index=False)
    shared = rng.normal(size=(len(labels), CLASSES))
    for k in range(members):
        logits = shared + rng.normal(size=shared.shape)
        logits[ids, labels] += 1.5 + rng.random()
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        columns = {f"c{c}": probabilities[:, c].astype(np.float32) for c in range(CLASSES)}
        pd.DataFrame({"id": table["id"], **columns}).to_parquet(folder / f"m{k}.parquet", index=False)
    weights = rng.dirichlet(np.ones(members), size=variants - 1).round(6)
    weights[:, 0] += 1 - weights.sum(axis=1)
    lines = ",\n      ".join(str([round(float(weight), 6) for weight in each]) for each in weights)
    files = "".join(f"      m{k}: m{k}.parquet\n" for k in range(members))
    return _written(
        folder,
        f"suite: predictions\ntask: {{table: {{heldout: heldout.parquet, test: test.parquet}}}}\n"
        f"pool:\n  predictions:\n    members:\n{files}"
        f"methods:\n  - best_single\n  - linear:\n      weights: [\n      {lines}]\n",
    )


def of_checkpoints(folder: Path, members: int, variants: int, of: int = 5) -> Path:
    """A suite of uniform soups of random subsets over members that are folders of tiny networks.

    Args:
        folder: that is made for it.
        members: of the pool.
        variants: with the reference.
        of: members of each soup.
    """
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    for k in range(members):
        (own := folder / f"checkpoints/m{k}").mkdir(parents=True)
        save_network(NETWORK, build(NETWORK), own)
    rng = np.random.default_rng(0)
    subsets = dict.fromkeys(tuple(sorted(rng.choice(members, of, replace=False).tolist())) for _ in range(2 * variants))
    lines = ",\n      ".join(str(list(subset)) for subset in list(subsets)[: variants - 1])
    files = ", ".join(f"checkpoints/m{k}" for k in range(members))
    return _written(
        folder,
        f"suite: checkpoints\ntask: digits\npool:\n  hf: {{members: [{files}]}}\n"
        f"methods:\n  - best_single\n  - uniform_soup:\n      members: [\n      {lines}]\n"
        "cost: {latency: false, memory: false}\n",
    )


def _written(folder: Path, text: str) -> Path:
    path = folder / "suite.yaml"
    path.write_text(text, encoding="utf-8")
    return path
