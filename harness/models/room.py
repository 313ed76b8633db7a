"""How much memory models may take in this process: one that does not fit stays in its files while it runs."""

from __future__ import annotations

import ctypes

import torch

from harness.environment import memory_available, memory_held

SHARE = 0.5
"""Of what is free, what one model may take where nothing else was said: others run beside it, and hold predictions."""
_most: float | None = None


def set_room(most: float | None) -> None:
    """Limit the bytes that this process may hold; ``inf`` for no limit, None for the usual share of what is free."""
    global _most
    _most = most


def fits(nbytes: int, device: torch.device | None = None) -> bool:
    """Whether so many bytes of weights may be held besides what is held already."""
    if device is not None and device.type == "cuda":
        return _most == float("inf") or nbytes <= SHARE * torch.cuda.mem_get_info(device)[0]
    if _most is None:
        return nbytes <= SHARE * memory_available()
    if memory_held() + nbytes > _most:
        give_back()
    return memory_held() + nbytes <= _most


def give_back() -> None:
    """Give the system what was freed and is kept for the next allocations: pieces of models, gigabytes of it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
