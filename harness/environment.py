"""What a run's numbers depend on beyond the suite: machine, versions, devices, commit. An allow-list, no variables."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from harness.keys import digest

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "pandas", "transformers", "lm_eval", "safetensors", "matplotlib")


def machine() -> dict[str, Any]:
    """The processor, its cores and the memory."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    memory = psutil.virtual_memory().total
    system = f"{platform.system()} {platform.machine()}"
    return {"system": system, "cpu": model, "cores": cores(), "memory_bytes": memory}


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_available() -> int:
    """Bytes that this process may still take: what the machine has left, or its control group where that is less."""
    free: int = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    try:
        most, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # there is no limit ("max"), or no such group
        return free
    return min(free, most - used + int(counts.get("inactive_file", 0)))


def memory_held() -> int:
    """Bytes of memory that this process has filled."""
    held: int = psutil.Process().memory_info().rss
    return held


def versions() -> dict[str, str]:
    """Python's version, Stockpot's, and those of the libraries that compute; one that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in ("stockpot", *PACKAGES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def devices() -> list[dict[str, Any]]:
    """The CUDA devices, or the CPU."""
    if not torch.cuda.is_available():
        return [{"kind": "cpu", "name": machine()["cpu"], "memory_bytes": machine()["memory_bytes"]}]
    properties = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [{"kind": "cuda", "name": p.name, "memory_bytes": p.total_memory} for p in properties]


def git_commit() -> str | None:
    """The commit of the code that runs, with "+" where files differ from it; None outside a checkout.

    A repository below which Stockpot is only installed, in an environment say, is another's: its commit is not ours.
    """
    folder = Path(__file__).resolve().parent
    try:
        if Path(_git(folder, "rev-parse", "--show-toplevel")).resolve() != folder.parent:
            return None
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]  # one that is killed leaves no lock
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


@lru_cache
def machine_digest() -> str:
    """What times, memory and energy depend on and a store may be carried away from."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    names = ("model name", "CPU implementer", "CPU part")  # the latter on ARM
    told = {line.split(":")[1].strip() for line in lines if line.startswith(names)}
    model = ", ".join(sorted(told)) or platform.processor()
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return digest([platform.system(), platform.machine(), model, len(lines), torch.__version__, devices])
