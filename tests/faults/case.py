"""One disturbance of a run, or of several, and what came of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.runs import Numbers


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing befell, which all others are compared with."""

    folder: Path
    numbers: Numbers
    seconds: float
    """That a forked run takes."""


Case = Callable[[Path, random.Random, Undisturbed], dict[str, int]]
"""Disturb runs in a folder that is its own, and raise ``runs.Fault`` where they do not survive it.

Returns the disturbances by kind: all of them have been survived.
"""
