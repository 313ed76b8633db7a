"""A small pool of predictions in files: three members of a task of three classes, each file of another sort."""

from pathlib import Path

import numpy as np
import pandas as pd

CLASSES = ["ape", "bee", "cat"]
HELDOUT, ROWS = 30, 90
IDS = [f"q{i}" for i in range(ROWS)]
LABELS = np.random.default_rng(0).integers(len(CLASSES), size=ROWS)
TABLE = {"table": {"heldout": "heldout.csv", "test": "test.csv"}}
POOL = {"predictions": {"members": {"a": {"file": "a.npz"}, "b": "b.parquet", "c": "c.csv"}}}
SUITE = """suite: planted
task: {table: {heldout: heldout.csv, test: test.csv}}
pool: {predictions: {members: {a: a.npz, b: b.parquet, c: c.csv}}}
methods:
"""


def labels() -> pd.DataFrame:
    """Of all rows, held-out first."""
    return pd.DataFrame({"id": IDS, "label": np.array(CLASSES)[LABELS]})


def write_labels(folder: Path, table: pd.DataFrame | None = None) -> None:
    """The two files of a task, of these rows."""
    table = labels() if table is None else table
    table[:HELDOUT].to_csv(folder / "heldout.csv", index=False)
    table[HELDOUT:].to_csv(folder / "test.csv", index=False)


def logits(member: int) -> np.ndarray:
    """What a member says [ROWS, C]: the later one is the better."""
    drawn = np.random.default_rng(member + 1).normal(size=(ROWS, len(CLASSES)))
    drawn[np.arange(ROWS), LABELS] += 0.5 + 0.4 * member
    return drawn


def probabilities(member: int) -> np.ndarray:
    powers = np.exp(logits(member))
    return powers / powers.sum(axis=1, keepdims=True)


def costs(member: int) -> np.ndarray:
    """What each answer costs [ROWS]."""
    return (1.0 + np.arange(ROWS) % 3) * (member + 1)


def wide(member: int) -> pd.DataFrame:
    """A member's probabilities, a column for each class."""
    return pd.DataFrame(probabilities(member), columns=CLASSES).assign(id=IDS)


def write_members(folder: Path, priced: bool = True) -> None:
    """Logits in npz, probabilities in Parquet, a shuffled long table in CSV; with costs if ``priced``."""
    money = [{"cost_money": costs(member)} if priced else {} for member in range(3)]
    np.savez(folder / "a.npz", ids=IDS, classes=CLASSES[::-1], logits=logits(0)[:, ::-1], **money[0])
    wide(1).assign(**money[1]).to_parquet(folder / "b.parquet", index=False)
    whole = wide(2).assign(**money[2])
    named = [name for name in whole if name not in CLASSES]
    long = whole.melt(named, CLASSES, "class", "probability").sample(frac=1, random_state=0)
    long.to_csv(folder / "c.csv", index=False)


def write_answers(folder: Path, column: str) -> None:
    """Members that give answers, or are known to be right or wrong only, as a, b and c in CSV."""
    for member, name in enumerate("abc"):
        given = logits(member).argmax(axis=1)
        values = np.array(CLASSES)[given] if column == "answer" else (given == LABELS).astype(int)
        table = pd.DataFrame({"id": IDS, column: values, "cost_tokens": np.arange(ROWS) + member})
        table.to_csv(folder / f"{name}.csv", index=False)


def write_pool(folder: Path, priced: bool = True) -> Path:
    """All files, and a suite without methods; returns the folder."""
    write_labels(folder)
    write_members(folder, priced)
    return folder
