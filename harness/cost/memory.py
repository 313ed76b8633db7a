"""Peak memory of the calling process: the CUDA allocator and NVML where there is a GPU, VmHWM on Linux otherwise.

Meant for a fresh process: the peak of one that has done other work says nothing.
"""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from harness.cost.cost import Bench, Context, Figures, cost
from harness.cost.gpu import CudaAllocator, DeviceMemory
from harness.cost.meters import Meter, Poll, Reading
from harness.results.metric import Column
from harness.types import Split

_RUSAGE_UNIT = 1 if sys.platform == "darwin" else 1024


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt``."""
_MAPPED_ALONE = 1 << 13
"""Bytes from which on a block is mapped on its own during the work, and so given back as soon as it is freed."""
_IS_MAPPED = 0b10
"""The bit of the word before a glibc block that says so."""


@dataclass(frozen=True)
class Memory:
    """Peak bytes, the part of them above the level before the work began, and where the figures come from."""

    peak_bytes: int | None
    working_bytes: int | None
    source: str
    """Also why there is no figure, where one is None."""


COLUMNS = (
    Column(
        "peak_memory_bytes",
        "peak memory of a fresh process that only runs this",
        "lower",
        "bytes",
        source="memory_source",
        elsewhere=True,
    ),
    Column(
        "working_memory_bytes",
        "the part of it above the idle process",
        "lower",
        "bytes",
        source="memory_source",
        elsewhere=True,
    ),
    Column(
        "predicted_memory_bytes",
        "working memory as predicted before anything ran; of single models and linear ensembles",
        "lower",
        "bytes",
        source="analytic",
    ),
)
WORDS = (("memory_source", "where the memory figures come from"),)


def derive(figures: Figures, context: Context) -> Figures:
    """What was predicted, beside what was measured."""
    return {"predicted_memory_bytes": context.forecast()}


def process_size(device: torch.device, test: Split) -> Figures:
    """Bytes of a process that has loaded the task and nothing else, as ``process_bytes`` has them."""
    _ = test.inputs
    return {"bytes": process_bytes(device)}


def _meters(device: torch.device) -> Mapping[str, Meter]:
    if device.type == "cuda":
        return {"memory of the device": DeviceMemory(device), "memory of the allocator": CudaAllocator(device)}
    return {"memory": ResidentPeak()}


@cost(
    "memory",
    columns=COLUMNS,
    words=WORDS,
    seconds=0.3,
    meters=_meters,
    once=process_size,
    derive=derive,
    fresh=True,
    usual=True,
    by_network=True,
)
def measure(bench: Bench) -> Figures:
    """Peak memory while this process loads a combination and runs a full batch."""

    def work() -> None:
        combination = bench.load()
        with torch.inference_mode():
            combination.log_probs(bench.test.full_batch)

    found = peak_memory(work, bench.device, warm_up=work)
    return {
        "peak_memory_bytes": found.peak_bytes,
        "working_memory_bytes": found.working_bytes,
        "memory_source": found.source,
    }


def peak_memory(
    work: Callable[[], object], device: torch.device, warm_up: Callable[[], object] = lambda: None
) -> Memory:
    """Run ``work`` and say how much memory it needed at its peak.

    ``warm_up`` is run before: what libraries take for themselves the first time that they are called with such shapes
    (code, handles, workspaces: 17 MB for convolutions on a CPU, 32 MiB for cuBLAS on an H100) is not the work's.
    """
    with _freed_memory_returned():
        return _on_gpu(work, device, warm_up) if device.type == "cuda" else _on_cpu(work, warm_up)


def process_bytes(device: torch.device) -> int:
    """What a process takes before it holds any model: this one's memory, or its CUDA context on a GPU.

    0 where the driver does not tell.
    """
    if device.type != "cuda":
        return _resident() or _peak()
    meter = DeviceMemory(device)
    meter.start()
    torch.zeros(1, device=device)
    return int(meter.stop().value or 0)


def _on_cpu(work: Callable[[], object], warm_up: Callable[[], object]) -> Memory:
    warm_up()
    gc.collect()
    with _no_holes():
        before = _resident()
        meter = ResidentPeak()
        meter.start()
        try:
            work()
        finally:
            reading = meter.stop()
    if reading.value is None:
        return Memory(None, None, reading.words)
    peak = int(reading.value)
    if before is None or not meter.reset:  # the peak may be of an earlier time
        return Memory(peak, None, reading.words)
    return Memory(peak, max(0, peak - before), reading.words)


def _on_gpu(work: Callable[[], object], device: torch.device, warm_up: Callable[[], object]) -> Memory:
    driver, allocator = DeviceMemory(device), CudaAllocator(device)
    driver.start()
    warm_up()
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    allocator.start()
    try:
        work()
    finally:
        reserved, used = allocator.stop(), driver.stop()
    working = None if reserved.value is None or allocator.allocated is None else allocator.allocated - before
    peaks = [int(reading.value) for reading in (used, reserved) if reading.value is not None]
    gave = [name for name, reading in (("nvml", used), ("torch.cuda", reserved)) if reading.value is not None]
    notes = [used.note if used.value is not None else f"nvml unavailable: {used.note}"]
    notes += [] if reserved.value is not None else [f"torch.cuda unavailable: {reserved.note}"]
    return Memory(max(peaks, default=None), working, f"{' + '.join(gave) or 'unavailable'} ({', '.join(notes)})")


@contextmanager
def _freed_memory_returned() -> Iterator[None]:
    """Have glibc give back at once what a tensor held; without that a peak depends on the order of earlier ones.

    Afterwards blocks of up to 32 MiB are kept again, which is where glibc's own rule ends up: it is the faster one.
    """
    _set_malloc(mmap_threshold=_MAPPED_ALONE, trim_threshold=0)
    try:
        yield
    finally:
        _set_malloc(mmap_threshold=1 << 25, trim_threshold=1 << 26)


@contextmanager
def _no_holes() -> Iterator[None]:
    """Keep the work from what lies free inside glibc's heap, whose pages are given back first.

    A tensor that fits in there would be resident already, and its need not seen; or it would stay resident after it
    is freed, and count as needed by all that follows.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.malloc_trim(0)
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    held, size = [], 1 << 30
    while size >= _MAPPED_ALONE:
        block = libc.malloc(size)
        if block and not ctypes.c_size_t.from_address(block - ctypes.sizeof(ctypes.c_size_t)).value & _IS_MAPPED:
            held.append(block)  # a hole: more of this size may follow
            continue
        libc.free(block)
        size //= 2
    try:
        yield
    finally:
        for block in held:
            libc.free(block)


def _set_malloc(mmap_threshold: int, trim_threshold: int) -> None:
    if libc := _glibc():
        libc.mallopt(_M_MMAP_THRESHOLD, mmap_threshold)
        libc.mallopt(_M_TRIM_THRESHOLD, trim_threshold)


def _glibc() -> ctypes.CDLL | None:
    """glibc, if memory is its malloc's; None for another libc, or another allocator that was loaded before it."""
    try:
        libc, own = ctypes.CDLL(None), ctypes.CDLL("libc.so.6")
        addresses = [ctypes.cast(library.malloc, ctypes.c_void_p).value for library in (libc, own)]
        return libc if hasattr(own, "malloc_trim") and addresses[0] == addresses[1] else None
    except (OSError, AttributeError, TypeError):
        return None


class ResidentPeak(Meter):
    """Peak resident bytes of this process, and of children that it began meanwhile.

    Their peaks are added, which is an upper bound: they need not be at the same time, and pages may be shared. Children
    are looked for every few hundredths of a second; the kernel's own sum over those that have ended is of no use, since
    a process inherits the peak of the one that it was forked from.
    """

    unit = "bytes"

    def _begin(self) -> None:
        self.reset = _status("VmHWM") is not None and _reset_peak()
        self.others = {child.pid for child in psutil.Process().children(recursive=True)}
        self.children: dict[int, int] = {}
        self.poll = Poll(self._see_children, every=0.03)
        self.poll.start()

    def _release(self) -> None:
        self.poll.end()

    def _see_children(self) -> None:
        for child in psutil.Process().children(recursive=True):
            if child.pid not in self.others and (peak := _status("VmHWM", child.pid)):
                self.children[child.pid] = peak

    def _end(self) -> Reading:
        self.poll.stop()
        children = sum(self.children.values())
        notes = [] if self.reset else ["the peak of all that the process did"]
        if children:
            notes.append(f"with {children / 1e6:.0f} MB of children")
        source = "getrusage" if _status("VmHWM") is None else "VmHWM"
        return Reading(_peak() + children, self.unit, source, ", ".join(notes))


def _status(field: str, pid: int | str = "self") -> int | None:
    """Bytes of a field of a process's status; None where there is none."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # no /proc, or the process has ended
        return None
    line = next((line for line in text.splitlines() if line.startswith(field + ":")), None)
    return int(line.split()[1]) * 1024 if line else None


def _resident() -> int | None:
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RUSAGE_UNIT


def _reset_peak() -> bool:
    """Ask the kernel to forget the peak so far; False where it cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
