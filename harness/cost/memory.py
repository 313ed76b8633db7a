"""Peak memory of the calling process: the CUDA allocator and NVML where there is a GPU, VmHWM on Linux otherwise.

Meant for a fresh process: the peak of one that has done other work says nothing.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Memory:
    """Peak bytes, the part of them above the level before the work began, and where the figures come from."""

    peak_bytes: int
    working_bytes: int
    source: str


def peak_memory(work: Callable[[], object], device: torch.device) -> Memory:
    """Run ``work`` and say how much memory it needed at its peak."""
    if device.type == "cuda":
        return _on_gpu(work, device)
    before = _resident()
    reset = _reset_peak()
    work()
    peak = _peak()
    return Memory(peak, max(0, peak - before), "VmHWM" if reset else "VmHWM (peak of the whole process)")


def _on_gpu(work: Callable[[], object], device: torch.device) -> Memory:
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    allocated = torch.cuda.max_memory_allocated(device)
    if (used := _nvml_used_by_this_process(device)) is not None:
        return Memory(max(used, torch.cuda.max_memory_reserved(device)), allocated, "nvml + torch.cuda")
    return Memory(torch.cuda.max_memory_reserved(device), allocated, "torch.cuda (nvml unavailable)")


def _nvml_used_by_this_process(device: torch.device) -> int | None:
    """What the driver says this process holds, context included; None where it does not say."""
    try:
        import pynvml

        pynvml.nvmlInit()
        # by UUID: NVML's numbering ignores CUDA_VISIBLE_DEVICES
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
        running = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        return next((p.usedGpuMemory for p in running if p.pid == os.getpid() and p.usedGpuMemory), None)
    except Exception:  # any driver trouble: the figure is unavailable, the run goes on
        return None


def _status(field: str) -> int | None:
    path = Path("/proc/self/status")
    if not path.is_file():
        return None
    line = next((line for line in path.read_text().splitlines() if line.startswith(field + ":")), None)
    return int(line.split()[1]) * 1024 if line else None


def _resident() -> int:
    return _status("VmRSS") or _peak()


def _peak() -> int:
    found = _status("VmHWM")
    if found is not None:
        return found
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _reset_peak() -> bool:
    """Ask the kernel to forget the peak so far; False where it cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
