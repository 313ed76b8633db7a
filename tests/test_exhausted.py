"""A full disk and a lack of memory are told from what libraries raise, whatever they make of it."""

import errno
import os
import resource
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from harness.exhausted import full_disk, is_out_of_memory, said_of_room, writing

FULL = "/dev/full"
"""A device that takes nothing, as a full disk."""
WRITERS = {
    "python": lambda: Path(FULL).write_text("text"),
    "parquet": lambda: pd.DataFrame({"a": range(9)}).to_parquet(FULL),
    "csv": lambda: pd.DataFrame({"a": range(9000)}).to_csv(FULL),
}


def test_a_library_that_keeps_the_number_in_its_words_only_is_understood(tmp_path):
    """safetensors; it puts its file in another's place, so never give it a device."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught, writing(tmp_path):
            save_file({"a": torch.zeros(1000)}, tmp_path / "file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path))
    assert not isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("library", WRITERS)
def test_a_full_disk_is_one_whoever_writes_and_names_the_place(library, tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, writing(tmp_path):
        WRITERS[library]()
    full = full_disk(caught.value)
    assert full.errno == errno.ENOSPC
    assert full.filename in (str(tmp_path), FULL)
    assert "bytes are free" in said_of_room(full)


def test_it_is_one_too_where_another_error_came_of_it_and_no_other_error_is():
    try:
        try:
            raise OSError(errno.EDQUOT, "over quota", "/store")
        except OSError as error:
            raise RuntimeError("a cost could not be kept") from error
    except RuntimeError as error:
        assert full_disk(error).filename == "/store"
    for other in (OSError(errno.EACCES, "no"), ValueError("(os error 28)x"[:11]), KeyError(28), None):
        assert full_disk(other) is None


def test_writing_leaves_other_errors_as_they_are(tmp_path):
    for error in (KeyError("a"), OSError(errno.ENOENT, "gone"), OSError(errno.ENOSPC, "full", "elsewhere")):
        with pytest.raises(type(error)) as caught, writing(tmp_path):
            raise error
        assert caught.value is error


@pytest.mark.parametrize(
    "allocate",
    [lambda: torch.empty(1 << 60, dtype=torch.uint8), lambda: np.empty(1 << 60, dtype=np.uint8),
     lambda: bytearray(1 << 62)],
    ids=["torch", "numpy", "python"],
)  # fmt: skip
def test_a_lack_of_memory_is_one_whoever_allocates(allocate):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate()
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("expected a tensor"))
    assert not is_out_of_memory(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))
