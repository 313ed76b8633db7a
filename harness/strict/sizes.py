"""How much a packed file becomes when it is unpacked: told from what it declares, before anything of it is."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pyarrow.parquet

from harness.errors import BadInput
from harness.strict.arrow_messages import MALFORMED, unpacked_bytes

FREE = 2**28
"""Bytes that any file may become."""
RATIO = 100
"""How many times its own size a file may become beyond that: tables of numbers become a few times as large, and what is
made to fill a memory a thousand times."""


def check_zip(path: Path) -> None:
    """``BadInput`` where a zip archive, such as npz, says that it becomes gigabytes out of little.

    What it says bounds what is read: Python's zipfile reads no more of a member than is declared of it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check(path, sum(member.file_size for member in archive.infolist()))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, EOFError):
        return  # which whoever reads it says better


def check_parquet(path: Path) -> None:
    """``BadInput`` where a Parquet file says that it has more values than fit in so few bytes, unless all are alike."""
    try:
        facts = pyarrow.parquet.read_metadata(path)
    except (pyarrow.ArrowException, OSError):
        return
    _check(path, max(8 * facts.num_rows * facts.num_columns, sum(
        facts.row_group(group).total_byte_size for group in range(facts.num_row_groups)
    )))  # fmt: skip


def check_arrow(path: Path) -> None:
    """The same of an Arrow file or stream, whose buffers may be compressed."""
    try:
        size = unpacked_bytes(path)
    except MALFORMED:
        return
    _check(path, size)


def _check(path: Path, size: int) -> None:
    own = path.stat().st_size
    if size > max(FREE, RATIO * own):
        hint = f"a file becomes {RATIO} times as large at most: write it again"
        raise BadInput(f"{own:,} bytes would become {size:,}", place=str(path), hint=hint)
