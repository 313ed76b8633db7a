"""Writes the tensors of a plan: many threads, each with small buffers of its own, over ranges of each tensor."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BadInput
from harness.folders import sync
from harness.streaming import kernels
from harness.streaming.jobs import RANGE, Compiled, computes
from harness.streaming.kernels import Place, Scratch, Sources
from harness.streaming.output import SHARD_BYTES, ShardWriter, step_bytes
from harness.streaming.plan import BYTES, Adapted, Plan, Step, TensorAt
from harness.streaming.scheduling import Job, Phases, Threads

MEMORY = 1_000_000_000
_COPIED = 1 << 20
"""Bytes that are copied at a time where the system cannot copy between files by itself."""


_LARGE = 1 << 20
"""Bytes from which on it is worth to let a range begin its way to the disk."""


@dataclass(frozen=True)
class Written:
    """What a merge wrote."""

    files: tuple[Path, ...]
    bytes_read: int
    """Of the tensors' files, each counted once for every step that it is in."""
    bytes_written: int


def write(
    plan: Plan,
    folder: Path,
    *,
    threads: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    memory: int = MEMORY,
    progress: Callable[[int], None] | None = None,
    range_elements: int = RANGE,
) -> Written:
    """Write the weights of a plan into a folder, and their index if they are several files.

    The result is the same whatever the number of threads and the length of ranges. On an error, or if it is
    interrupted, files that are not whole are left in the folder: see ``output.whole``.

    Args:
        plan: what to write.
        folder: an existing one.
        threads: by default as many as this process may use cores.
        shard_bytes: the most bytes of tensors in a file.
        memory: bounds, in bytes, how many tensors are held whole at a time: those of rules and types that have no
            compiled function, (sources + 3) x 4 x elements each; a single one may take more. Besides, each thread holds
            about (sources + 1) x 1.3 MB, and a tensor whose entries are ranked 4 MB for each bound.
        progress: is told of bytes as they are written, by any thread.
        range_elements: how much of a tensor a thread takes at a time.

    Raises:
        BadInput: a file that is cut off, shapes that differ, NaN or infinity in what is merged, a disk without room.
        OSError: reading or writing fails.
    """
    writer = ShardWriter(folder, plan, shard_bytes)
    try:
        engine = _Engine(writer, range_elements, progress or (lambda _: None))
        Threads(threads or _cores(), memory).run(engine.job(step) for step in plan.steps)
    finally:
        writer.close()
    for file in (*writer.files, folder):
        sync(file)
    read = sum(tensor.nbytes for step in plan.steps for tensor in tensors_of(step))
    return Written(writer.files, read, writer.nbytes)


class _Engine:
    def __init__(self, writer: ShardWriter, range_elements: int, progress: Callable[[int], None]) -> None:
        self._writer, self._range, self._progress = writer, range_elements, progress
        self._lock = threading.Lock()

    def job(self, step: Step) -> Job:
        check_shapes(step)
        if _moves(step):
            return Job(self._opened(step, self._move))
        if _compiled(step):
            return Job(self._opened(step, self._compute))
        return Job(self._opened(step, self._hold), held=(len(step.sources) + 3) * 4 * step.size)

    def _opened(self, step: Step, phases: Callable[[Step, Sources, int, int], Phases]) -> Phases:
        """The phases of a step whose files are open meanwhile."""
        sources = Sources(step.name, tensors_of(step))
        try:
            fd, offset = self._writer.place(step)
            if step_bytes(step):
                yield from phases(step, sources, fd, offset)
            self._writer.done(step)
        finally:
            sources.close()

    def _compute(self, step: Step, sources: Sources, fd: int, offset: int) -> Phases:
        width = BYTES[step.dtype]

        def wrote(first: int, last: int) -> None:
            self._wrote(fd, offset + first * width, (last - first) * width)

        out = Place(fd, kernels.TYPES[step.dtype], offset)
        yield from Compiled(step, sources, out, self._range, wrote).phases()

    def _move(self, step: Step, sources: Sources, fd: int, offset: int) -> Phases:
        """Bytes as they are."""
        (tensor,) = sources.tensors
        length = self._range * 4

        def task(start: int) -> Callable[[Scratch], None]:
            def run(_: Scratch) -> None:
                nbytes = min(length, tensor.nbytes - start)
                _copy(tensor, sources.fd(tensor), start, fd, offset + start, nbytes)
                self._wrote(fd, offset + start, nbytes)

            return run

        yield [task(start) for start in range(0, tensor.nbytes, length)]

    def _hold(self, step: Step, sources: Sources, fd: int, offset: int) -> Phases:
        """The whole tensor in memory."""

        def run(_: Scratch) -> None:
            from harness.streaming.reading import content, merge

            data = content(merge(step, sources))
            done = 0
            while done < len(data):
                done += os.pwrite(fd, data[done:], offset + done)
            self._wrote(fd, offset, len(data))

        yield [run]

    def _wrote(self, fd: int, offset: int, nbytes: int) -> None:
        if nbytes >= _LARGE and kernels.available():
            kernels.begin_writeback(fd, offset, nbytes)
        with self._lock:
            self._progress(nbytes)


def tensors_of(step: Step) -> list[TensorAt]:
    """All that a step reads."""
    found: list[TensorAt] = []
    for source in step.sources:
        found.extend((source.tensor, source.a, source.b) if isinstance(source, Adapted) else (source,))
    return found


def _moves(step: Step) -> bool:
    """Whether a step copies bytes as they are."""
    return step.rule == "copy" and isinstance(step.sources[0], TensorAt) and step.sources[0].dtype == step.dtype


def _compiled(step: Step) -> bool:
    """Whether the compiled functions compute a step."""
    if not kernels.available() or any(isinstance(source, Adapted) for source in step.sources):
        return False
    types = {step.dtype, *(source.dtype for source in step.sources)}
    return types <= kernels.TYPES.keys() and (step.rule == "copy" or computes(step))


def check_shapes(step: Step) -> None:
    """``BadInput`` where a source's shape is not the result's."""
    for source in step.sources:
        if source.shape != step.shape:
            tensor = source.tensor if isinstance(source, Adapted) else source
            shapes = f"{list(source.shape)} where the merge has {list(step.shape)}"
            problem = f"tensor '{tensor.name}' of {tensor.path.name} has the shape {shapes}"
            raise BadInput(problem, place=str(tensor.path.parent))


def _copy(tensor: TensorAt, source: int, start: int, target: int, offset: int, nbytes: int) -> None:
    """Bytes of a tensor from its file to another."""
    done = 0
    while done < nbytes:
        piece = os.pread(source, min(_COPIED, nbytes - done), tensor.offset + start + done)
        if not piece:
            raise kernels.cut_off(tensor)
        written = 0
        while written < len(piece):
            written += os.pwrite(target, piece[written:], offset + done + written)
        done += len(piece)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
