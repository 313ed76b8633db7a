"""A model's folder as it is written: shards in which every byte has its place at once; named when it is whole."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness.errors import BadInput
from harness.exhausted import NO_ROOM, writing
from harness.folders import remove_abandoned, sync, sync_folder, temporary
from harness.streaming.plan import BYTES, Plan, Step
from harness.streaming.shards import INDEX, SINGLE

SHARD_BYTES = 5_000_000_000


def step_bytes(step: Step) -> int:
    """How many bytes a step writes; types that are only copied are as long as what they are copied from."""
    first = step.sources[0]
    return step.nbytes if step.dtype in BYTES else getattr(first, "nbytes", 0)


def split_shards(
    steps: Sequence[Step], shard_bytes: int, size_of: Callable[[Step], int] = step_bytes
) -> dict[str, list[Step]]:
    """The files and what each holds, as huggingface_hub's ``split_torch_state_dict_into_shards`` would divide them.

    A tensor that is larger than a shard may be has one to itself.
    """
    shards: list[list[Step]] = []
    current: list[Step] = []
    filled = 0
    for step in steps:
        size = size_of(step)
        if size > shard_bytes:
            shards.append([step])
            continue
        if filled + size > shard_bytes:
            shards.append(current)
            current, filled = [], 0
        current.append(step)
        filled += size
    if current or not shards:
        shards.append(current)
    if len(shards) == 1:
        return {SINGLE: shards[0]}
    return {f"model-{i:05d}-of-{len(shards):05d}.safetensors": shard for i, shard in enumerate(shards, start=1)}


class ShardWriter:
    """Makes the files of a plan at their full length, and says where each tensor goes; they are filled in any order.

    Args:
        folder: an existing folder without weights.
        plan: what is written.
        shard_bytes: the most bytes of tensors in a file.

    Raises:
        BadInput: the disk has not enough room.
    """

    def __init__(self, folder: Path, plan: Plan, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        shards = split_shards(plan.steps, shard_bytes)
        self.files = tuple(folder / name for name in shards)
        self.nbytes = sum(map(step_bytes, plan.steps))
        self._places: dict[str, tuple[Path, int]] = {}
        self._left: Counter[Path] = Counter()
        self._open: dict[Path, int] = {}
        self._lock = threading.Lock()
        for name, steps in shards.items():
            self._create(folder / name, steps, plan)
        if len(shards) > 1:
            self._write_index(shards, plan)

    def _create(self, file: Path, steps: Sequence[Step], plan: Plan) -> None:
        header: dict[str, object] = {"__metadata__": dict(plan.metadata)} if plan.metadata else {}
        end = 0
        for step in steps:
            start, end = end, end + step_bytes(step)
            header[step.name] = {"dtype": step.dtype, "shape": list(step.shape), "data_offsets": [start, end]}
            self._places[step.name] = file, start
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        data = 8 + len(text)
        with open(file, "wb") as opened:
            _reserve(opened.fileno(), data + end, self._folder)
            opened.write(len(text).to_bytes(8, "little") + text)
        for step in steps:
            self._places[step.name] = file, data + self._places[step.name][1]
        self._left[file] = len(steps)

    def _write_index(self, shards: dict[str, list[Step]], plan: Plan) -> None:
        floats = sum(step.size for step in plan.steps)
        index = {
            "metadata": {"total_parameters": floats, "total_size": self.nbytes},
            "weight_map": {step.name: name for name, steps in shards.items() for step in steps},
        }
        (self._folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def place(self, step: Step) -> tuple[int, int]:
        """The open file of a step and the offset of its first byte; to be followed by ``done``."""
        file, offset = self._places[step.name]
        with self._lock:
            if file not in self._open:
                self._open[file] = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
            return self._open[file], offset

    def done(self, step: Step) -> None:
        """The step is written; a file with nothing left to write is closed."""
        file, _ = self._places[step.name]
        with self._lock:
            self._left[file] -= 1
            if self._left[file] == 0:
                os.close(self._open.pop(file))

    def close(self) -> None:
        """Close what is open still, which after a failure may be any file."""
        with self._lock:
            while self._open:
                os.close(self._open.popitem()[1])


def _reserve(fd: int, size: int, folder: Path) -> None:
    """Give a file its length and, where the file system can, its room on the disk."""
    if not hasattr(os, "posix_fallocate"):
        return os.ftruncate(fd, size)
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno in NO_ROOM:
            free = shutil.disk_usage(folder).free
            problem = f"there is no room for a file of {size:,} bytes: {error.strerror} ({free:,} bytes are free)"
            raise BadInput(problem, place=str(folder.parent)) from None
        os.ftruncate(fd, size)
    return None


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` to write into, which gets its name when all is on the disk, or is removed.

    What processes that were killed left of the same name is removed first; a lock tells that they are gone.

    Raises:
        BadInput: ``out`` is there already and is not an empty folder, or cannot be made.
    """
    out = out.resolve()
    check_free(out)
    with ExitStack() as stack:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(out.parent, f".{out.name}.merging")
            folder = stack.enter_context(temporary(out.parent, f".{out.name}.merging"))
        except OSError as error:
            raise BadInput(f"no folder can be made there: {error.strerror}", place=str(out)) from None
        with writing(out.parent):
            yield folder
            sync_folder(folder)
        try:
            folder.rename(out)
        except OSError:
            check_free(out)  # which may have come into being since
            raise
        sync(out.parent)


def check_free(out: Path) -> None:
    """``BadInput`` where there is something already."""
    if out.is_dir():
        if any(out.iterdir()):
            raise BadInput("the folder exists and is not empty", place=str(out), hint="name a new one, or remove it")
    elif out.exists() or out.is_symlink():
        raise BadInput("this is a file and no folder", place=str(out), hint="name a new folder")
