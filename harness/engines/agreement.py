"""What machines that share a run's work must agree on, for the same key to name the same artefact on all of them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from pathlib import Path

import harness
from harness import environment
from harness.errors import BadInput
from harness.folders import temporary
from harness.keys import digest, file_digest
from harness.shared import shared_place, shown
from harness.store import WRITING

PLUG_INS = "stockpot."
"""What the names of our entry-point groups begin with."""
DRIVER = "driver"
"""The file of the machine that hands out the jobs, in each folder that it has made to meet the others in."""


@dataclass(frozen=True)
class Meeting:
    """A new folder that machines meet in, by the word that they tell each other there."""

    place: str | Path
    """What they share: a folder, or the URL of a place."""
    folder: str
    """The new one, in it."""
    word: str


@dataclass(frozen=True)
class Facts:
    """What one machine says of itself."""

    versions: Mapping[str, str]
    """Of Python, Stockpot, the libraries that compute and plug-ins."""
    code: str
    """The digest of Stockpot's code, and of plug-ins'."""
    machine: str
    """As ``environment.machine_digest`` has it: what is measured counts for machines of this sort."""


def facts() -> Facts:
    """Those of this machine."""
    points = _plug_ins()
    others = {point.dist.name: point.dist.version for point in points if point.dist}
    return Facts({**environment.versions(), **others}, code_digest(), environment.machine_digest())


@cache
def code_digest() -> str:
    """Of all files of Stockpot that run, compiled ones too, and of the modules that plug-ins declare things in."""
    root = Path(harness.__file__).parent
    files = {str(path.relative_to(root)): path for path in root.rglob("*") if path.suffix in (".py", ".so")}
    for point in _plug_ins():
        found = util.find_spec(point.module)
        if found and found.origin and Path(found.origin).is_file():
            files[f"{point.group} {point.name}"] = Path(found.origin)
    return digest({name: file_digest(path) for name, path in files.items()})


def _plug_ins() -> list[metadata.EntryPoint]:
    groups = sorted(group for group in metadata.entry_points().groups if group.startswith(PLUG_INS))
    return [point for group in groups for point in metadata.entry_points(group=group)]


def check_facts(node: str, theirs: Facts) -> None:
    """``BadInput`` where another machine would make other artefacts than this one, or file them elsewhere."""
    ours = facts()
    here, there = ours.versions, theirs.versions
    for name in sorted({*here, *there}):
        if here.get(name) != there.get(name):
            problem = f"it has {name} {there.get(name, 'nowhere')}, and this machine {here.get(name, 'none')}"
            raise BadInput(problem, place=f"node {node}", hint="install the same versions on all nodes")
    if ours.code != theirs.code:
        problem = "its code of Stockpot, or of a plug-in, is not this machine's"
        raise BadInput(problem, place=f"node {node}", hint="install the same on all nodes, compiled parts too")


@contextmanager
def meetings(folders: Sequence[Path], places: Sequence[str] = ()) -> Iterator[list[Meeting]]:
    """A new folder in each, with a secret word in it: who can tell the word sees the same folder.

    Args:
        folders: which are made where they are not there.
        places: URLs of what machines share that have no folder in common.

    Yields:
        These new folders, which are gone at the end.
    """
    with ExitStack() as stack:
        found = []
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            found.append(Meeting(folder, stack.enter_context(temporary(folder, WRITING)).name, _new_word()))
        for url in places:
            found.append(Meeting(url, stack.enter_context(shared_place(url).meeting()), _new_word()))
        for meeting in found:
            shared_place(meeting.place).write_word(f"{meeting.folder}/{DRIVER}", meeting.word)
        yield found


def _new_word() -> str:
    return secrets.token_hex(16)


def why_not_shared(found: Sequence[Meeting], node: str) -> str | None:
    """On another machine: what keeps it from reading or writing where the jobs do; None where nothing does."""
    for meeting in found:
        try:
            place = shared_place(meeting.place)
            if place.word(f"{meeting.folder}/{DRIVER}") != meeting.word:
                return f"its {shown(meeting.place)} is another one than this machine's, or none"
            place.write_word(f"{meeting.folder}/{node}", meeting.word)
        except BadInput as error:
            return f"its {error}"
    return None


def check_answers(found: Sequence[Meeting], name: str, node: str) -> None:
    """``BadInput`` where what the machine of this name wrote as ``node`` is not seen here."""
    for meeting in found:
        if shared_place(meeting.place).word(f"{meeting.folder}/{node}") != meeting.word:
            problem = f"what it writes to {shown(meeting.place)} is not seen here"
            raise BadInput(problem, place=f"node {name}", hint=SHARE)


SHARE = ("start the command, with its --out, in a folder that all nodes see at the same path, or name with --store a "
         "place that all of them reach")  # fmt: skip
