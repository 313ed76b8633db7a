"""What a machine runs out of, told from what libraries raise of it: room on a disk, and memory."""

from __future__ import annotations

import errno
import gc
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Of a full disk, a quota, and the largest file that a process may write."""
MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
"""What accelerators and torch's allocators say, in an error of no kind of its own."""
_BY_RUST = re.compile(r"\(os error (\d+)\)")  # safetensors and tokenizers keep the number in their words only


def full_disk(error: BaseException | None) -> OSError | None:
    """The error of a full disk that this one is, or comes from: number, words, and the place where it is known."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return OSError(error.errno, os.strerror(error.errno), error.filename)
        said = _BY_RUST.search(_words(error)) if type(error).__module__.partition(".")[0] != "harness" else None
        if said and int(said[1]) in NO_ROOM:
            return OSError(int(said[1]), os.strerror(int(said[1])), None)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def _words(error: BaseException) -> str:
    """What an error says; nothing where saying it fails, as it may with one that others wrote."""
    try:
        return str(error)
    except Exception:
        return ""


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """A full disk in the block becomes an ``OSError`` that names this place, unless it names one already."""
    try:
        yield
    except Exception as error:
        if (full := full_disk(error)) is None:
            raise
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise OSError(full.errno, full.strerror, full.filename or str(place)) from error


def said_of_room(full: OSError, place: object = None) -> str:
    """What is wrong with a full disk, where, and how many bytes are free there."""
    named = full.filename or place
    limit = f"no file may be larger than {_file_limit():,} bytes" if full.errno == errno.EFBIG and _file_limit() else ""
    facts = "; ".join(filter(None, (limit, _free(named))))
    return f"{named}: {full.strerror}{f' ({facts})' if facts else ''}" if named else str(full.strerror)


def _file_limit() -> int | None:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _free(place: object) -> str:
    folder = Path(os.fsdecode(place) if isinstance(place, bytes) else str(place)).absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return f"{shutil.disk_usage(folder).free:,} bytes are free"
    except OSError:
        return ""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: on an accelerator, or on the CPU, where torch raises a plain RuntimeError."""
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in _words(error).lower() for word in MEMORY)


def free_memory() -> None:
    """Give back what nobody holds any more; to be called once the error that held on to it is gone."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
