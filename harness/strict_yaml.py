"""YAML 1.2's core schema, read strictly, with the place of every value: what can be misread is refused."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import yaml

from harness.errors import BadInput

Path = tuple[str | int, ...]

_INT = re.compile(r"[-+]?[0-9]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_NON_FINITE = re.compile(r"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_LEGACY = {"yes", "no", "on", "off"}


@dataclass(frozen=True)
class Document:
    """A file's plain value (dicts, lists, strings, numbers, booleans, None) and the line of each part of it."""

    value: Any
    source: str
    lines: dict[Path, int]

    def place(self, path: Path) -> str:
        """``file:line`` of the value at a path of keys and positions (of the nearest one above it that exists)."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.source}:{self.lines.get(path, 1)}"


def read(path: FilePath) -> Document:
    """Read and parse a file."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BadInput("the file is not UTF-8 text", place=str(path)) from None
    except OSError as error:
        raise BadInput(f"cannot read the file: {error.strerror or error}", place=str(path)) from None
    return load(text, str(path))


def load(text: str, source: str) -> Document:
    """Parse one document; ``BadInput`` names the line and says what is wrong with it."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise BadInput(str(error.problem or error.context or "not valid YAML"), place=f"{source}:{line}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise BadInput(f"not valid YAML: {str(error).splitlines()[0]}", place=source) from None
    if node is None:
        raise BadInput("the file is empty", place=source)
    lines: dict[Path, int] = {}
    return Document(_plain(node, (), source, lines), source, lines)


class _Loader(yaml.SafeLoader):
    """The safe loader without anchors: a name that stands for text elsewhere hides what a suite says."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            problem = "anchors and aliases are not allowed: write the value out"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        if getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(problem="tags are not allowed", problem_mark=event.start_mark)
        return super().compose_node(parent, index)


def _plain(node: yaml.Node, path: Path, source: str, lines: dict[Path, int]) -> Any:
    lines[path] = node.start_mark.line + 1
    place = f"{source}:{lines[path]}"
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, place)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, i), source, lines) for i, item in enumerate(node.value)]
    value: dict[str, Any] = {}
    for key_node, item in node.value:
        line = key_node.start_mark.line + 1
        key = _scalar(key_node, f"{source}:{line}") if isinstance(key_node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            raise BadInput("a key must be a word", place=f"{source}:{line}", hint="quote it")
        if key == "<<":
            raise BadInput("merge keys are not allowed", place=f"{source}:{line}", hint="write the values out")
        if key in value:
            first = lines[(*path, key)]
            raise BadInput(f"duplicate key '{key}' (first on line {first})", place=f"{source}:{line}")
        value[key] = _plain(item, (*path, key), source, lines)
        lines[(*path, key)] = line
    return value


def _scalar(node: yaml.ScalarNode, place: str) -> Any:
    text = node.value
    if node.style is not None:  # quoted, or a block of text
        return text
    if text in _WORDS:
        return _WORDS[text]
    if text.lower() in _LEGACY:
        raise BadInput(f"'{text}' is a boolean to some readers", place=place, hint="write true or false, or quote it")
    if _NON_FINITE.match(text):
        raise BadInput(f"'{text}' is not a finite number", place=place)
    if _INT.match(text):
        if len(text) > 18:
            raise BadInput(f"'{text[:20]}…' is too large a number", place=place)
        return int(text)
    if _FLOAT.match(text):
        number = float(text)
        if not math.isfinite(number):
            raise BadInput(f"'{text}' is not a finite number", place=place)
        return number
    return text
