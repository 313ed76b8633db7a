"""Where a run's files go: what is in their way is said before any work is done."""

from __future__ import annotations

import os
from pathlib import Path

from harness.errors import BadInput

LATEST = "latest"
"""The link to a suite's newest run, beside its runs."""


def check_places(out: Path, suite: str) -> None:
    """``BadInput`` where the results of a suite, or what a run keeps, could not be written below a folder."""
    place = f"--out {out}"
    try:
        str(out).encode("utf-8")
    except UnicodeEncodeError:  # which no report or record of it could hold
        raise BadInput("the folder's name is not UTF-8", place=place, hint="name another folder") from None
    try:
        for folder in (out, out / ".store", out / suite):
            _check_folder(folder, place)
        latest = out / suite / LATEST
        if latest.exists() and not latest.is_symlink():
            hint = "move it away: a run makes a link of this name to its folder"
            raise BadInput(f"{latest} is in the way", place=place, hint=hint)
    except OSError as problem:
        raise BadInput(f"results cannot be written here: {problem.strerror}", place=place) from None


def _check_folder(folder: Path, place: str) -> None:
    there = folder
    while not (there.exists() or there.is_symlink()) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        what = "a link to nothing" if there.is_symlink() and not there.exists() else "a file"
        raise BadInput(f"results go to folders, and {there} is {what}", place=place)
    if not os.access(there, os.W_OK | os.X_OK):
        raise BadInput(f"results cannot be written: {there} is not writable", place=place, hint="name another folder")
