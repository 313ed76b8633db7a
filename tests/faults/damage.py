"""Damage to stored files, and disks that are full."""

from __future__ import annotations

import contextlib
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from harness.store import Store
from tests.faults.case import Undisturbed
from tests.faults.runs import (
    Fault,
    begin,
    check_no_orphans,
    check_no_temporary_files,
    check_same,
    check_store,
    check_words,
    finish,
)

PAGE = 4096
"""Bytes that a small disk gives files at once."""
LINE = 600
"""Bytes that a log must have room for: what a run says of a full disk is in it."""
WAYS = ("truncated", "a bit flipped", "deleted")


def damage(path: Path, how: str, draws: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if how == "deleted":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[: draws.randrange(len(content))])
    else:
        content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
        path.write_bytes(content)


def damaged(
    folder: Path, draws: random.Random, undisturbed: Undisturbed, *, number: int = 0, command: bool = False
) -> dict[str, int]:
    """A file of the store is damaged, of the kinds and names in turn, and the suite is run again."""
    shutil.copytree(undisturbed.folder, folder, symlinks=True)
    names: dict[tuple[str, str], list[Path]] = {}
    for artefact in Store(folder / "out/.store").folders():
        for path in sorted(path for path in artefact.rglob("*") if path.is_file() and path.stat().st_size):
            names.setdefault((artefact.parent.parent.name, path.name), []).append(path)
    kinds = sorted(names)
    path = draws.choice(names[kinds[number % len(kinds)]])
    how = WAYS[(number + number // len(kinds)) % len(WAYS)]
    damage(path, how, draws)
    finish(folder, command=command)
    check_no_orphans()
    check_same(folder, undisturbed.numbers)
    check_no_temporary_files(folder)
    check_store(folder)
    return {how: 1}


@contextlib.contextmanager
def small_disk(folder: Path, pages: int) -> Iterator[bool]:
    """A disk of so many pages at the folder; whether there is one: to mount it takes a privilege."""
    folder.mkdir(parents=True)
    size = f"size={pages * PAGE}"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def full(folder: Path, draws: random.Random, undisturbed: Undisturbed, *, command: bool = False) -> dict[str, int]:
    """A disk with less room than the run takes, which then gets more; where none can be mounted, as ``limited``."""
    files = (path for path in (undisturbed.folder / "out").rglob("*") if path.is_file())
    used = sum(-(-path.stat().st_size // PAGE) for path in files)
    with small_disk(folder / "out", draws.randint(2, used - 8)) as mounted:
        if not mounted:
            return limited(folder / "instead", draws, undisturbed, command=command)
        process = begin(folder, command=command)
        process.wait()
        check_words(process, 2)
        if "bytes are free" not in process.said() or "make room" not in process.said():
            raise Fault(f"it said: {process.said().strip().splitlines()[-1][:300]}")
        check_no_orphans()
        check_no_temporary_files(folder)
        subprocess.run(["mount", "-o", "remount,size=256m", folder / "out"], check=True)
        _continued(folder, undisturbed)
    return {"full disk": 1}


def limited(folder: Path, draws: random.Random, undisturbed: Undisturbed, *, command: bool = False) -> dict[str, int]:
    """No file may be larger than a number of bytes that some of the run's are larger than."""
    sizes = sorted(path.stat().st_size for path in (undisturbed.folder / "out").rglob("*") if path.is_file())
    most = draws.choice([size for size in sizes[:-1] if LINE <= size < sizes[-1]])

    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python has it

    process = begin(folder, prepare=prepare, command=command)
    process.wait()
    check_words(process, 2)
    if "no file may be larger" not in process.said() or "make room" not in process.said():
        raise Fault(f"it said: {process.said().strip().splitlines()[-1][:300]}")
    check_no_orphans()
    check_no_temporary_files(folder)
    _continued(folder, undisturbed)
    return {"limit of file sizes": 1}


def _continued(folder: Path, undisturbed: Undisturbed) -> None:
    finish(folder)
    check_no_orphans()
    check_same(folder, undisturbed.numbers)
    check_no_temporary_files(folder)
    check_store(folder)
