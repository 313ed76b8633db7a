"""What a cost may declare."""

import pytest

from harness.cost.cost import cost
from harness.registry import COSTS
from harness.results.metric import Column

SIZE = Column("size", "bytes on disk", interval="size")
WORDS = [("planted_source", "where it comes from")]


@pytest.mark.parametrize(
    ("name", "columns", "words", "problem"),
    [
        ("Planted", [SIZE], [], "lower-case"),
        ("plan-ted", [SIZE], [], "lower-case"),
        ("planted", [Column("size of it", "bytes on disk")], [], "lower-case"),
        ("planted", [SIZE], [("Source", "where it comes from")], "lower-case"),
        ("planted", [], WORDS, "has no column"),
        ("planted", [SIZE, SIZE], [], "two columns 'size'"),
        ("planted", [SIZE], [("size_low", "how low")], "two columns 'size_low'"),
        ("planted", [SIZE], [*WORDS, *WORDS], "two columns 'planted_source'"),
    ],
)
def test_names_are_identifiers_and_each_is_said_once(monkeypatch, name, columns, words, problem):
    monkeypatch.setattr(COSTS, "_known", dict(COSTS.all()))
    with pytest.raises(ValueError, match=problem):
        cost(name, columns=columns, words=words, seconds=1.0)(lambda bench: {})
    assert name not in COSTS.all()


def test_a_right_declaration_is_taken(monkeypatch):
    monkeypatch.setattr(COSTS, "_known", dict(COSTS.all()))
    cost("planted", columns=[SIZE], words=WORDS, seconds=1.0)(lambda bench: {})
    assert COSTS.get("planted").cells == ("size", "size_low", "size_high", "planted_source")
