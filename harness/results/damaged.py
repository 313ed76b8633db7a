"""Where the files of a finished run are read for a person: what damage makes them raise is one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.display.lines import one_line, said_by
from harness.errors import BadInput


@contextmanager
def reading_run(folder: Path) -> Iterator[None]:
    """Around what reads a run's files and shows them: whatever these are not is a ``BadInput`` that names the folder.

    A table is read by pandas, a record by whoever wants a key of it, and a file may be cut off, or edited, anywhere.
    """
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        problem = f"the run cannot be read: {type(error).__name__}: {one_line(said_by(error), 300)}"
        hint = "was a file of it cut off or edited? run the suite again"
        raise BadInput(problem, place=str(folder), hint=hint) from error
