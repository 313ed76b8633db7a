"""What this machine offers a run, and what a run will find out here or will not, with the reason."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch

from harness import environment
from harness.cost import nvml
from harness.cost.meters import Unavailable
from harness.registry import COSTS, ENGINES
from harness.tasks import archives


def examine(out: Path) -> dict[str, Any]:
    """Everything that is known, by section; a section that cannot be examined is a sentence that says why.

    Args:
        out: the folder of the results, whose disk is looked at; it need not exist.
    """
    sections: dict[str, Callable[[], Any]] = {
        "versions": environment.versions,
        "machine": environment.machine,
        "threads": _threads,
        "memory": _memory,
        "disk": lambda: _disk(out),
        "devices": environment.devices,
        "nvml": nvml.inventory,
        "archives": _archives,
        "measured": _measured,
    }
    return {name: _or_reason(section) for name, section in sections.items()}


def _or_reason(section: Callable[[], Any]) -> Any:
    try:
        return section()
    except Unavailable as reason:
        return f"unavailable: {reason}"
    except Exception as error:  # a doctor who faints helps nobody
        return f"unavailable: {type(error).__name__}: {error}"


def _threads() -> dict[str, Any]:
    engine = ENGINES.get("local")()
    named = {name: os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    numbers = {name: value for name, value in named.items() if value.isdecimal()}
    return {"torch": torch.get_num_threads(), "workers": engine.workers, "each": engine.threads_per_worker, **numbers}


def _memory() -> dict[str, int]:
    found = psutil.virtual_memory()
    return {"total_bytes": found.total, "available_bytes": found.available}


def _disk(out: Path) -> dict[str, Any]:
    folder = out.absolute()
    while not folder.exists():
        folder = folder.parent
    return {"folder": str(folder), "free_bytes": shutil.disk_usage(folder).free}


def _archives() -> dict[str, str]:
    """Of each data archive, whether it is here: what is missing is fetched by the first run that needs it."""
    return {archive.file: _state(archive) for archive in archives.pinned()}


def _state(archive: archives.Archive) -> str:
    path = archives.archive_folder() / archive.file
    if not path.is_file():
        return f"missing; {archive.package}=={archive.version} is fetched when a run needs it"
    return "present" if archive.is_intact(path) else f"damaged: delete {path}"


def _measured() -> dict[str, str]:
    """Of each cost, where its figure will come from, or why there will be none."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = {"parameters and operations": "counter"}
    for cost in COSTS:
        meters = cost.meters(device)
        for name, meter in meters.items():
            meter.start()
            found[name] = meter.stop().words
        if not meters:
            reason = cost.unavailable(device)
            found[cost.name] = f"unavailable: {reason}" if reason else "available"
    return found


def as_text(record: Mapping[str, Any]) -> str:
    """The record for people: a section to a paragraph, an entry to a line."""
    paragraphs = [[section, *(f"  {line}" for line in _lines(found))] for section, found in record.items()]
    return "\n".join(line for paragraph in paragraphs for line in paragraph)


def _lines(found: Any) -> Iterator[str]:
    if isinstance(found, Mapping):
        for key, value in found.items():
            if isinstance(value, list):
                yield from (line for item in value for line in _lines(item))
            elif key.endswith("_bytes"):
                yield f"{key.removesuffix('_bytes')}: {value / 1e9:.1f} GB"
            else:
                yield f"{key}: {value}"
    elif isinstance(found, list):
        for item in found:
            yield ", ".join(_lines(item))
    else:
        yield str(found)
