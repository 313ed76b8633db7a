"""YAML 1.2 core schema, with the place of every value; whatever a person could misread is refused.

Numbers are decimal only (``0o17`` and ``0x1f`` stay text). ``yes``, ``no``, ``on`` and ``off`` are keys like any other,
but never values. Text that is JSON means what it means to a JSON reader, as YAML 1.2 promises and PyYAML, which reads
YAML 1.1, does not keep.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.errors import BadInput

Position = tuple[str | int, ...]
"""Where a value is inside a document: the keys and list positions that lead to it."""

DEPTH = 100
"""Levels of nesting; a file that needs more is not written by a person."""

BYTES = 16 * 2**20
"""Of a file: for the same reason."""


@dataclass(frozen=True)
class Document:
    """A parsed file: its plain value and the line of everything in it."""

    value: Any
    text: str
    source: str
    lines: Mapping[Position, int]

    def line(self, path: Position) -> int:
        """The line of a key or list item (counted from 1); where it is absent, of what should hold it."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def place(self, path: Position) -> str:
        """``file:line`` of a key or list item, for messages."""
        return f"{self.source}:{self.line(path)}"


def read(path: Path) -> Document:
    """Parse a file; ``BadInput`` where it cannot be read, is not UTF-8 or is refused by ``load``."""
    return load(_text(path), str(path))


def read_all(path: Path) -> tuple[Document, ...]:
    """Parse a file of one or more documents; ``BadInput`` as in ``read`` and ``load_all``."""
    return load_all(_text(path), str(path))


def load(text: str, source: str) -> Document:
    """Parse one YAML document of mappings, lists, text, decimal numbers, true, false and null.

    Raises ``BadInput`` with the line for duplicate or non-text keys, anchors, aliases, tags, merge keys, non-finite
    numbers, ``yes/no/on/off`` as values, several documents, an empty file, tabs between tokens, line separators that
    only YAML 1.1 knows, and bad syntax. JSON may have such tabs and separators.
    """
    nodes = _nodes(text, source, several=False)
    if not nodes or _is_nothing(nodes[0][1]):
        raise BadInput("the file is empty", place=f"{source}:1")
    return _document(nodes[0][1], text, source)


def load_all(text: str, source: str) -> tuple[Document, ...]:
    """Parse one or more YAML documents, between which stand lines ``---``.

    Lines are those of the file. The text of each document is its part of the file: all up to the next one's ``---``.
    Raises ``BadInput`` as ``load``, and with its line for a document that is empty among several.
    """
    nodes = _nodes(text, source, several=True)
    if len(nodes) < 2:
        return (load(text, source),)
    lines = text.splitlines(keepends=True)
    cuts = [0, *(start for start, _ in nodes[1:]), len(lines)]
    documents = []
    for k, (start, node) in enumerate(nodes):
        if _is_nothing(node):
            place = f"{source}:{start + 1}"
            raise BadInput(f"document {k + 1} of {len(nodes)} is empty", place=place, hint="remove its line '---'")
        documents.append(_document(node, "".join(lines[cuts[k] : cuts[k + 1]]), source))
    return tuple(documents)


def _text(path: Path) -> str:
    try:
        content = _content(path)
    except OSError as error:
        raise BadInput(f"the file cannot be read: {error.strerror}", place=str(path)) from None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadInput("the file is not UTF-8", place=f"{path}:{line}", hint="save it as UTF-8") from None


def _content(path: Path) -> bytes:
    """A pipe or a device may never end, and is no file that a run could name; nothing of it is read."""
    with open(path, "rb", opener=_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise BadInput("this is no plain file", place=str(path), hint="save the text as a file and name that")
        content = file.read(BYTES + 1)
    if len(content) > BYTES:
        size = max(status.st_size, len(content))
        raise BadInput(f"the file has {size:,} bytes", place=str(path), hint=f"it may have {BYTES:,} at most")
    return content


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _nodes(text: str, source: str, *, several: bool) -> list[tuple[int, yaml.Node]]:
    """The root of each document, after the line (from 0) on which the document starts."""
    json_text = _is_json(text)
    if not json_text and (separator := re.search("[\x85\u2028\u2029]", text)):
        place = f"{source}:{text.count(chr(10), 0, separator.start()) + 1}"
        hint = "it ends a line in YAML 1.1 and does not in 1.2: write it as an escape in double quotes"
        raise BadInput(f"character {separator[0]!a} is not allowed", place=place, hint=hint)
    try:
        loader = _Loader(_escaped(text) if json_text else text, source, json_text)
        return list(loader.documents(several))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise BadInput(f"character {chr(error.character)!a} is not allowed in YAML", place=f"{source}:{line}") from None
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, source) from None
    except (ValueError, OverflowError):  # PyYAML's chr() of "\UFFFFFFFF", and its int() of a %YAML version
        place = f"{source}:{loader.line + 1}"
        raise BadInput("not valid YAML: an escape or a version is out of range", place=place) from None


def _is_nothing(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and not node.value


def _document(node: yaml.Node, text: str, source: str) -> Document:
    lines: dict[Position, int] = {(): _line(node)}
    return Document(_Builder(source, lines).value(node, ()), text, source, lines)


def _is_json(text: str) -> bool:
    """Whether the text is a JSON document; its numbers may have any size."""
    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is Python's, not JSON's")


def _escaped(text: str) -> str:
    """The same JSON in characters that YAML reads alike: all others stand in strings, but for tabs, which never do."""
    return re.sub("[^\n\r\x20-\x7e]", lambda found: " " if found[0] == "\t" else json.dumps(found[0])[1:-1], text)


class _Loader(yaml.SafeLoader):
    """PyYAML's composer with the core schema's plain scalars; refuses what would share or retype nodes."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 (PyYAML's own class attribute)

    def __init__(self, text: str, source: str, json_text: bool) -> None:
        self.source, self.depth, self.json_text = source, 0, json_text
        super().__init__(text)

    def stale_possible_simple_keys(self) -> None:
        """Forget keys that are too long or too far from their colon: YAML has such limits, JSON has none."""
        if not self.json_text:
            super().stale_possible_simple_keys()

    def documents(self, several: bool) -> Iterator[tuple[int, yaml.Node]]:
        """The root of each document, after the line (from 0) on which it starts; several only where asked for."""
        if not several:
            if (node := self.get_single_node()) is not None:
                yield 0, node
            return
        while self.check_node():
            yield self.peek_event().start_mark.line, self.get_node()

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        place = f"{self.source}:{event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise BadInput(f"alias '*{event.anchor}' is not allowed", place=place, hint="write the value out")
        if event.anchor is not None:
            raise BadInput(f"anchor '&{event.anchor}' is not allowed", place=place, hint="write the value out")
        if event.tag is not None:
            raise BadInput(f"tag {event.tag!r} is not allowed", place=place, hint="quote what should be text")
        if self.depth == DEPTH:
            raise BadInput(f"nested more than {DEPTH} levels deep", place=place)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_PLAIN = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
    "not finite": r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    "switch": r"(?i:yes|no|on|off)",
    "merge": r"<<",
}
for _tag, _pattern in _PLAIN.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), None)


@dataclass(frozen=True)
class _Builder:
    """Turns nodes into plain values, noting the line of each."""

    source: str
    lines: dict[Position, int]

    def value(self, node: yaml.Node, path: Position) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.lines[(*path, index)] = _line(item)
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        return self.scalar(node)

    def mapping(self, node: yaml.MappingNode, path: Position) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.key(key_node)
            if key in result:
                hint = f"it is first given on line {self.lines[(*path, key)]}"
                raise BadInput(f"duplicate key {key!r}", place=self.place(key_node), hint=hint)
            # The key's line, not the value's: a person looks for "members:", and the value may start lines below.
            self.lines[(*path, key)] = _line(key_node)
            result[key] = self.value(value_node, (*path, key))
        return result

    def key(self, node: yaml.Node) -> str:
        if node.tag == "merge":
            raise BadInput("merge key '<<' is not allowed", place=self.place(node), hint="write the keys out")
        if not isinstance(node, yaml.ScalarNode):
            raise BadInput("a key must be text, not a list or mapping", place=self.place(node))
        if node.tag not in ("switch", "tag:yaml.org,2002:str"):
            problem = f"a key must be text, not {node.value or 'null'}"
            raise BadInput(problem, place=self.place(node), hint="quote it")
        return self.text(node)

    def scalar(self, node: yaml.Node) -> Any:
        match node.tag:
            case "null":
                return None
            case "bool":
                return node.value.lower() == "true"
            case "int" | "float":
                return self.number(node)
            case "not finite":
                raise BadInput(f"number '{node.value}' is not finite", place=self.place(node))
            case "switch":
                meant = str(node.value.lower() in ("yes", "on")).lower()
                hint = f'write {meant}, or "{node.value}" if it is text'
                raise BadInput(f"'{node.value}' is not a truth value in YAML 1.2", place=self.place(node), hint=hint)
        return self.text(node)

    def number(self, node: yaml.Node) -> int | float:
        try:
            number = int(node.value) if node.tag == "int" else float(node.value)
        except ValueError:  # more digits than Python converts
            raise BadInput(f"a number of {len(node.value)} digits is too long", place=self.place(node)) from None
        if isinstance(number, float) and not math.isfinite(number):
            raise BadInput(f"number '{node.value}' is not finite", place=self.place(node))
        return number

    def text(self, node: yaml.Node) -> str:
        try:  # JSON writes characters beyond U+FFFF as two escapes, which PyYAML leaves as two
            return node.value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise BadInput("the text holds half of a surrogate pair", place=self.place(node)) from None

    def place(self, node: yaml.Node) -> str:
        return f"{self.source}:{_line(node)}"


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _syntax_error(error: yaml.MarkedYAMLError, source: str) -> BadInput:
    mark = error.problem_mark or error.context_mark
    place = f"{source}:{mark.line + 1}" if mark else source
    problem = error.problem or "syntax error"
    if error.context == "expected a single document in the stream":
        return BadInput("the file holds several documents", place=place, hint="remove the line '---'")
    if "'\\t'" in problem:
        return BadInput("a tab is not allowed here", place=place, hint="indent and separate with spaces")
    hint = None
    if "mapping values are not allowed" in problem:
        hint = "quote text that holds ': '"
    elif "cannot start any token" in problem:
        hint = "quote text that starts with it"
    return BadInput(f"not valid YAML: {problem}", place=place, hint=hint)
