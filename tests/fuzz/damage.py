"""What may become of a file: damage to its bytes, and values that nobody who means well would write."""

from __future__ import annotations

import json
import random
import struct
import zipfile
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

HUGE = 10**9
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, 2**31, 2**63, -(2**63), HUGE, 10**400, 1e308, 1e-300, float("nan"), float("inf"),
    "", " ", "x", "..", "/", "/dev/zero", "../../../etc/passwd", "~", "-1", "1e9", "nan", "a" * 10_000, "\x1b[2J",
    "a\nb", "\0", "\ud800", "\u202e", "::error::x", "=1+1", "<b>", "{{ 1 }}", "%s", "http://127.0.0.1/x", "hf://a/b",
    "os:system", "!function os.system", [], {}, [1], [[]], {"a": 1}, [None], [0] * 1000, {"": {}}, [["x"] * 3] * 3,
)  # fmt: skip
"""What is put in the place of a value."""
LINES = (
    "- ", ":", "---", "...", "? a", "a: b", "  x: 1", "\t", "&a [*a, *a]", "<<: *a",
    "!!python/object/apply:os.system [id]", "%YAML 9.9", "#", '"', "'", "[" * 300, "{a: " * 150, "- - - - - -",
    "a: &b {c: *b}", "key: |", "\ufeff", "\u2028", "x: !function os.system", "a" * 3000,
)  # fmt: skip
"""Lines that are put into a text."""


def text(chance: random.Random, content: str) -> str:
    """A text with one, seldom more, of its lines, words or characters changed."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        lines = content.split("\n")
        at = chance.randrange(len(lines))
        change = chance.choice(("lose", "twice", "indent", *["word"] * 3, "insert", "cut", "swap", "character"))
        if change == "lose":
            del lines[at]
        elif change == "twice":
            lines[at:at] = [lines[at]] * chance.choice((1, 1, 300))
        elif change == "indent":
            lines[at] = " " * chance.randint(0, 6) + lines[at].lstrip()
        elif change == "insert":
            lines.insert(at, " " * chance.randint(0, 4) + chance.choice(LINES))
        elif change == "cut":
            lines = content[: chance.randrange(len(content) + 1)].split("\n")
        elif change == "swap":
            second = chance.randrange(len(lines))
            lines[at], lines[second] = lines[second], lines[at]
        elif change == "character" and lines[at]:
            where = chance.randrange(len(lines[at]))
            other = chance.choice("[]{}:,-#&*!|>'\"%@`\0\x85 é\U0001f600")
            lines[at] = f"{lines[at][:where]}{other}{lines[at][where + 1 :]}"
        elif words := lines[at].split(" "):
            said = chance.choice(VALUES)
            words[chance.randrange(len(words))] = said if isinstance(said, str) else json.dumps(said)
            lines[at] = " ".join(words)
        content = "\n".join(lines)
    return content


def tree(chance: random.Random, value: Any) -> Any:
    """A JSON value with one, seldom more, of the values in it changed, lost or nested deep."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at = chance.choice(list(_places(value))[:3000])
        new: Any = deepcopy(chance.choice(VALUES))
        if chance.random() < 0.05:
            for _ in range(chance.choice((20, 60, 900))):
                new = [new] if chance.random() < 0.5 else {"a": new}
        value = _changed(value, at, new, lose=chance.random() < 0.2)
    return value


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    for key in value if isinstance(value, dict) else range(min(len(value), 4)) if isinstance(value, list) else ():
        yield from _places(value[key], (*at, key))


def _changed(value: Any, at: tuple[Any, ...], new: Any, *, lose: bool) -> Any:
    if not at:
        return new
    inner = value
    for key in at[:-1]:
        inner = inner[key]
    if lose:
        del inner[at[-1]]
    else:
        inner[at[-1]] = new
    return value


def raw(chance: random.Random, content: bytes) -> bytes:
    """Bytes of which some are flipped, cut off, doubled, or others."""
    at = chance.randrange(len(content) + 1)
    change = chance.choice(("flip", "flip", "flip", "cut", "noise", "insert", "zeros", "double", "empty", "lose"))
    if change == "flip" and content:
        changed = bytearray(content)
        for _ in range(chance.choice((1, 1, 1, 8))):
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        return bytes(changed)
    if change == "cut":
        return content[:at]
    if change == "lose":
        return content[:at] + content[at + chance.randint(1, 64) :]
    made = {"insert": chance.randbytes(chance.randint(1, 64)), "zeros": bytes(64), "double": content}
    others = {"noise": chance.randbytes(300), "empty": b""}
    return others.get(change, content[:at] + made.get(change, b"") + content[at:])


def json_file(chance: random.Random, content: bytes) -> bytes:
    """The bytes of a JSON file: mostly other values in it, else other bytes."""
    if chance.random() < 0.15:
        return raw(chance, content)
    return json.dumps(tree(chance, json.loads(content))).encode("utf-8", "surrogatepass")


def text_file(chance: random.Random, content: bytes) -> bytes:
    """The bytes of a file of text: mostly other words in it, else other bytes."""
    if chance.random() < 0.1:
        return raw(chance, content)
    return text(chance, content.decode("utf-8")).encode("utf-8", "surrogatepass")


def safetensors(chance: random.Random, content: bytes) -> bytes:
    """The bytes of a safetensors file: mostly another header, or another length of it."""
    if chance.random() < 0.2:
        return raw(chance, content)
    length = int.from_bytes(content[:8], "little")
    header, values = content[8 : 8 + length], content[8 + length :]
    header = json_file(chance, header) if chance.random() < 0.7 else raw(chance, header)
    said = chance.choice((len(header),) * 6 + (0, 1, 2**31, 2**63 - 1, 2**64 - 1, len(header) + 8))
    return struct.pack("<Q", said) + header + values


def archive(chance: random.Random, content: bytes, scratch: Path) -> bytes:
    """The bytes of a zip archive: other members, names that lead away, or members that claim or hold gigabytes."""
    if chance.random() < 0.5:
        return raw(chance, content)
    (scratch / "given.zip").write_bytes(content)
    with zipfile.ZipFile(scratch / "given.zip") as given:
        members = {name: given.read(name) for name in given.namelist()}
    name = chance.choice(list(members))
    change = chance.choice(("bomb", "bomb", "away", "twice", "damage", "shape", "shape", "lost"))
    if change == "damage":
        members[name] = raw(chance, members[name])
    elif change == "shape":
        members[name] = _reshaped(chance, members[name])
    elif change == "lost":
        del members[name]
    elif change == "away":
        members[chance.choice(("../../away.npy", "/tmp/away.npy", "C:\\away.npy", "a/\0.npy"))] = members.pop(name)
    with zipfile.ZipFile(scratch / "made.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        for each, held in members.items():
            made.writestr(each, held)
        if change == "twice":
            made.writestr(name, members[name])
        if change == "bomb":
            with made.open(zipfile.ZipInfo(f"{name}x.npy"), "w", force_zip64=True) as target:
                target.write(members[name][:128])
                for _ in range(chance.choice((20, 20, 20, 80))):
                    target.write(ZEROS)
    return (scratch / "made.zip").read_bytes()


ZEROS = bytes(2**24)


def _reshaped(chance: random.Random, content: bytes) -> bytes:
    """A numpy array whose header says another shape or type."""
    dtype = chance.choice(("<f8", "<f4", "|O", "<U9", "<U999999999", "|V9", "<M8[s]", "<c16", "|S1", "bogus"))
    shape = chance.choice(("(1000000000000,)", "(3,)", "()", "(-1,)", "(99999, 99999)", "(0,)", "(2**99,)", "[" * 200))
    said = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    said += b" " * (-(len(said) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(said)) + said + content[128:]
