"""Tables on stdout: drawn for a terminal, aligned plain text for everything else."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.display.lines import escaped, plain_line

COLOURS = {"better": "green", "enough": "green", "worse": "red", "failed": "red", "too few": "red"}
"""Of cells that hold just this word; the word says the same without colour."""


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str] = ()) -> None:
    """Print rows of text under their columns, those named in ``right`` aligned to the right."""
    rows = [[escaped(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw(columns, rows, right)
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(columns, row, widths, strict=True)
        ]
        print(plain_line("  ".join(cells).rstrip()))


def _draw(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str]) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    Console().print(table)
