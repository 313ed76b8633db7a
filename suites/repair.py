"""The data of repair.yaml: verses of the King James Bible as a damaged copy has them, and as they are.

Run it once: ``python suites/repair.py [FOLDER]``. It writes train.parquet, heldout.parquet and test.parquet into
suites/data/repair, with columns id, text, damaged, label and cluster (the chapter), and clean.parquet: verses of the
chapters of train whose group nobody wrote down. In ``damaged`` letters are lost (``_`` stands there) or misread
as another letter, which nothing tells; spaces and punctuation stay. All is in lower case.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import verses

LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))
MARK = "_"
LOST, MISREAD = 0.15, 0.04
"""The shares of letters that are lost, and that are misread."""
ROWS = {"train": 3_000, "heldout": 1_000, "test": 2_500}
"""Verses with a label; the others of train are in clean.parquet."""


def damage(text: str, rng: np.random.Generator) -> str:
    """A text with letters lost and misread; of each letter it is drawn by itself."""
    read = np.array(list(text))
    is_letter = (read >= "a") & (read <= "z")
    drawn = rng.random(len(read))
    others = LETTERS[(np.searchsorted(LETTERS, read[is_letter]) + rng.integers(1, 26, is_letter.sum())) % 26]
    misread = read.copy()
    misread[is_letter] = others
    found = np.where(is_letter & (drawn < LOST), MARK, read)
    return "".join(np.where(is_letter & (drawn >= LOST) & (drawn < LOST + MISREAD), misread, found))


def tables() -> dict[str, pd.DataFrame]:
    """The rows of the files, by name."""
    rng = np.random.default_rng(20261129)
    found = {}
    for name, rows in verses.split(verses.read_verses()).items():
        rows = rows.assign(text=rows["text"].str.lower())
        labelled = rows.iloc[: ROWS[name]]
        found[name] = labelled.assign(damaged=[damage(text, rng) for text in labelled["text"]])
        if name == "train":
            found["clean"] = rows.iloc[ROWS[name] :][["id", "text"]]
    return found


def main() -> None:
    """Write the four files."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data" / "repair"
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables().items():
        rows.to_parquet(folder / f"{name}.parquet", index=False)
        print(f"{folder / name}.parquet: {len(rows):,} verses")


if __name__ == "__main__":
    main()
