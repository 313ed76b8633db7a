"""Verses and their groups of books: every book in one group, and nothing of one split in another."""

from itertools import combinations

import pytest

from harness.tasks.archives import SCRIPTURE
from tests.suites.script import load_script


@pytest.fixture(scope="module")
def script():
    return load_script("verses", SCRIPTURE)


@pytest.fixture(scope="module")
def verses(script):
    return script.read_verses()


def test_a_verse_is_read_with_its_book_and_without_marks(script, verses):
    row = verses.set_index("id").loc["JOHN 11:35"]
    assert (row["text"], row["label"], row["cluster"]) == ("Jesus wept.", "gospels_acts", "JOHN 11")
    assert not verses["text"].str.contains(r"[\[\]\n\d]|^ | $|  ").any()
    books = [book for group in script.GROUPS.values() for book in group.split()]
    assert sorted(set(verses["cluster"].str.rpartition(" ")[0])) == sorted(books)
    assert len(books) == 66


def test_splits_share_no_chapter_and_no_text(script, verses):
    splits = script.split(verses)
    assert {name: len(rows) for name, rows in splits.items()} == script.ROWS
    for one, other in combinations(splits.values(), 2):
        for column in ("id", "text", "cluster"):
            assert not set(one[column]) & set(other[column])
    for rows in splits.values():
        assert set(rows["label"]) == set(script.GROUPS)
        assert rows["text"].is_unique


def test_the_same_rows_are_drawn_again(script, verses):
    once, again = script.split(verses), script.split(verses)
    assert all(once[name].equals(again[name]) for name in once)
