"""What a value in a file may name by a path, which is relative to that file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Beside:
    """What is around a method's parameters: the file that they stand in, and the models that they are for."""

    folder: Path
    """Of that file."""
    models: Mapping[str, str]
    """Folders, as seen from here, of the pool's models by their names ("base", "m0"); none of those made here."""
