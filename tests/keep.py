"""Makes a copied run small enough to be committed: ``python -m tests.keep FOLDER``.

scores.parquet keeps what variants.csv has not, details.json the first seed, comparisons.parquet those of all seeds, and
tables of text have nine digits.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd

from harness.results.columns import ALL_SEEDS


def keep(folder: Path) -> None:
    """Of the files that are there."""
    if (path := folder / "scores.parquet").is_file():
        columns = pd.read_csv(folder / "variants.csv", nrows=0).columns
        scores = pd.read_parquet(path)
        scores[~scores["metric"].isin(columns)].to_parquet(path, index=False)
    if (path := folder / "comparisons.parquet").is_file():
        comparisons = pd.read_parquet(path)
        comparisons[comparisons["seed"] == ALL_SEEDS].to_parquet(path, index=False)
    for path in folder.glob("*.csv"):
        table = pd.read_csv(path, dtype={"seed": str}, keep_default_na=False, na_values=[""])
        table.to_csv(path, index=False, float_format="%.9g")
    path = folder / "details.json"
    every = json.loads(path.read_text(encoding="utf-8"))
    first = {name: dict([*of_seeds.items()][:1]) for name, of_seeds in every.items()}
    path.write_text(json.dumps(first, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
