"""The JSON files of a model's folder: how they are read, without torch or transformers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import BadInput


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file of a model's folder; ``BadInput`` where it holds none, or one nested too deep."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{file.name} cannot be read: {error.strerror}", place=str(file.parent)) from None
    except (ValueError, RecursionError):
        raise BadInput(f"{file.name} is not JSON", place=str(file.parent), hint="was it cut off?") from None
    if not isinstance(content, dict):
        raise BadInput(f"{file.name} is not a model's configuration", place=str(file.parent))
    if _is_deeper(content, DEPTH):
        raise BadInput(f"{file.name} is nested more than {DEPTH} levels deep", place=str(file.parent))
    return content


DEPTH = 50
"""Levels of nesting of a JSON file; transformers' have about five, and its readers call themselves for each."""


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(levels == 0 or _is_deeper(each, levels - 1) for each in inner)


LAYERS = 10_000
"""Of any sort, in a model: to build more, also without values, takes minutes and gigabytes."""
LARGEST = 10**9
"""Of a network's option, whatever it counts: no memory holds one that is so large in any direction."""
COUNTS = re.compile(r"(.*_)?n?_?(layers?|blocks?|depths?|stages?|experts?|heads?)(_.*)?")
NO_COUNTS = re.compile(r".*(_size|_dim|_dims|_length|_len|_width|_ids?|_types?)")


def check_layers(settings: Any, place: str) -> None:
    """``BadInput`` for settings, however deep, of more layers, blocks, experts or heads than any model has."""
    for key, value in settings.items() if isinstance(settings, dict) else ():
        if COUNTS.fullmatch(str(key)) and not NO_COUNTS.fullmatch(str(key)):
            numbers = value if isinstance(value, list) else [value]
            largest = max((each for each in numbers if isinstance(each, int | float)), default=0)
            if largest > LAYERS:
                hint = f"it may be {LAYERS:,} at most"
                raise BadInput(f"'{key}' is {largest:,}", place=place, hint=hint)
        check_layers(value, place)


def kernels(settings: Any) -> Iterator[str]:
    """Implementations, such as of attention, that transformers would fetch from the hub and run, however deep."""
    for key, value in settings.items() if isinstance(settings, dict) else ():
        if str(key).endswith("_implementation") and "/" in str(value):
            yield str(value)
        yield from kernels(value)
