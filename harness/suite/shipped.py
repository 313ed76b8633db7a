"""Where the suites that come with Stockpot are: in its checkout, or where its wheel put them."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import harness

NAME = "suites"
PLACE = ("share", "stockpot", NAME)
"""Of the suites below the environment that a wheel is installed in (``data-files`` in pyproject.toml)."""


def shipped_suites() -> Path | None:
    """The folder of the suites that come with Stockpot, tasks beside them; None where an installation left them out."""
    checkout = Path(harness.__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file() and (checkout / NAME).is_dir():
        return checkout / NAME
    try:
        files = metadata.files("stockpot") or []
    except metadata.PackageNotFoundError:
        return None
    placed = (Path(str(file.locate())).resolve() for file in files if file.parts[-4:-1] == PLACE)
    return next((file.parent for file in placed if file.is_file()), None)
