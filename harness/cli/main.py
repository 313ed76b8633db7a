"""The command line. Data goes to stdout, everything else to stderr; a user's mistake is one line and exit code 2.

Modules are imported inside the commands: torch takes over a second, and --help should not.
"""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer

from harness.cli import gating, importing, machine, merging, publishing, reading, running, sharding
from harness.cli.signals import TERMINATED, ended_by_signals
from harness.cli.start import STOPPED
from harness.display.lines import one_line
from harness.errors import INTERRUPTED, BadInput, Interrupted
from harness.exhausted import full_disk, said_of_room, writing

app = typer.Typer(
    help="Stockpot: ensemble, average, merge, distil or route? Build every combination of your models and decide by "
    "evidence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for group in (running, sharding, importing, reading, gating, publishing, merging, machine):
    app.add_typer(group.commands)


LONGEST = 4000
"""Characters of an error: it may list all that is known."""

MAKE_ROOM = "make room, or name another place, and run the same command again: what is done is kept"

PLACES = {errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG, errno.EPERM, errno.EROFS}
"""Errors of a place that a user named: there is nothing in a traceback that would help."""


def fail(message: str, code: int) -> NoReturn:
    """Print one line and end the process."""
    print(f"stockpot: {one_line(message, LONGEST)}", file=sys.stderr)
    raise SystemExit(code)


@contextmanager
def _said() -> Iterator[None]:
    """What is printed in the block is written by its end, or the reason is told: at exit it would be a traceback."""
    try:
        yield
    finally:
        with writing(Path("stdout")):
            try:
                sys.stdout.flush()
            except OSError as problem:
                with open(os.devnull, "w") as nowhere:  # for what is left
                    os.dup2(nowhere.fileno(), sys.stdout.fileno())
                if problem.errno != errno.EPIPE:  # who reads no more wants no words either
                    raise


def main(arguments: Sequence[str] | None = None) -> None:
    """The ``stockpot`` command, once it is imported (``harness.cli.start``)."""
    gc.set_threshold(100_000, 20, 20)  # imports and tables make many objects that stay: to look them through is a tenth
    atexit.register(gc.freeze)  # nothing is collected at exit: the objects of torch and matplotlib would take a second
    heard: list[int] = []
    try:
        with ended_by_signals(heard), _said():
            app(args=None if arguments is None else list(arguments))
    except BadInput as problem:
        fail(str(problem), 2)
    except Interrupted as end:
        fail(STOPPED, end.code)
    except KeyboardInterrupt:  # of a caller's own handler
        fail(STOPPED, INTERRUPTED)
    except Exception as problem:
        if full := full_disk(problem):
            fail(f"{said_of_room(full)}; {MAKE_ROOM}", 2)
        if heard:
            fail(STOPPED, heard[-1])
        if not isinstance(problem, OSError) or problem.errno not in PLACES:
            raise
        named = f"{problem.filename}: " if problem.filename is not None else ""
        fail(f"{named}{problem.strerror}; what is done is kept", 2)
    except SystemExit as end:
        if end.code in (INTERRUPTED, TERMINATED):
            fail(STOPPED, int(end.code))
        raise
