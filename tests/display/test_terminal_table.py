"""Tables: aligned plain lines where nobody watches, drawn in a terminal, and no control characters in either."""

import sys

import pytest

from harness.display.terminal_table import print_table

COLUMNS = ["name", "score"]
ROWS = [["a\x1b[2Jb", "9.5"], ["longer", "10.25"]]


def test_plain_columns_are_aligned(capsys):
    print_table(COLUMNS, ROWS, right={"score"})
    assert capsys.readouterr().out.splitlines() == ["name       score", "a\\x1b[2Jb    9.5", "longer     10.25"]


def test_an_empty_table_is_its_heading(capsys):
    print_table(COLUMNS, [])
    assert capsys.readouterr().out == "name  score\n"


def test_a_terminal_gets_a_drawn_table_without_what_moves_its_cursor(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(COLUMNS, [*ROWS, ["[bold]x[/bold]", "worse"]])
    out = capsys.readouterr().out
    assert "─" in out
    assert "\x1b[2J" not in out
    assert "[bold]x[/bold]" in out


@pytest.mark.parametrize("width", [1, 3])
def test_a_row_that_does_not_fit_its_columns_is_refused(width):
    with pytest.raises(ValueError, match="zip"):
        print_table(COLUMNS, [["x"] * width])
