"""The JSON files of a model's folder: how they are read, without torch or transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import BadInput


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file of a model's folder; ``BadInput`` where it holds none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{file.name} cannot be read: {error.strerror}", place=str(file.parent)) from None
    except (ValueError, RecursionError):
        raise BadInput(f"{file.name} is not JSON", place=str(file.parent), hint="was it cut off?") from None
    if not isinstance(content, dict):
        raise BadInput(f"{file.name} is not a model's configuration", place=str(file.parent))
    return content


def kernels(settings: Any) -> Iterator[str]:
    """Implementations, such as of attention, that transformers would fetch from the hub and run, however deep."""
    for key, value in settings.items() if isinstance(settings, dict) else ():
        if str(key).endswith("_implementation") and "/" in str(value):
            yield str(value)
        yield from kernels(value)
