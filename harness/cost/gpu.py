"""Meters of one GPU: the memory, energy and utilisation that the driver shows, and what torch's allocator holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

import torch

from harness.cost import nvml
from harness.cost.meters import Meter, Poll, Reading, Unavailable


def uuids_of(device: torch.device) -> list[str]:
    """The names under which NVML may know this CUDA device; ``Unavailable`` where CUDA does not give its UUID."""
    index = torch.cuda.current_device() if device.index is None else device.index
    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
    if uuid is None:
        raise Unavailable("torch does not give the UUID of this device")
    return nvml.uuids_of(index, str(uuid), os.environ.get("CUDA_VISIBLE_DEVICES"))


def clocks(device: torch.device) -> dict[str, float | str]:
    """What the driver says of the device's clocks now, MHz; a sentence in the place of what it does not say."""
    try:
        opened = nvml.Device(uuids_of(device))
    except Unavailable as reason:
        return {"sm_mhz": f"unavailable: {reason}"}
    try:
        return {"sm_mhz": opened.clock("sm"), "memory_mhz": opened.clock("memory")}
    except Unavailable as reason:
        return {"sm_mhz": f"unavailable: {reason}"}
    finally:
        with suppress(Unavailable):  # what was timed before is not lost for it
            opened.close()


class _DeviceMeter(Meter):
    """A meter that holds an NVML device, and perhaps a poll, while it measures.

    ``device`` is a CUDA device, or names under which NVML may know one.
    """

    def __init__(self, device: torch.device | Sequence[str], every: float = 0.01) -> None:
        self.named, self.every = device, every
        self.device: nvml.Device | None = None
        self.poll: Poll[tuple[float, ...]] | None = None

    def _open(self) -> nvml.Device:
        self.device = nvml.Device(uuids_of(self.named) if isinstance(self.named, torch.device) else self.named)
        return self.device

    def _release(self) -> None:
        poll, device, self.poll, self.device = self.poll, self.device, None, None
        if poll:
            poll.end()
        if device:
            device.close()

    def _watch(self, poll: Poll[tuple[float, ...]]) -> None:
        self.poll = poll
        poll.start()

    def _samples(self) -> list[tuple[float, tuple[float, ...]]]:
        assert self.poll is not None
        return self.poll.stop()


class DeviceMemory(_DeviceMeter):
    """Peak bytes on one device: of this process where the driver shows it, else of all minus what was used before."""

    unit = "bytes"

    def _begin(self) -> None:
        self.why_not_own: str | None = None
        device = self._open()
        self.before = device.memory()
        self._watch(Poll(lambda: self._sample(device), self.every))

    def _sample(self, device: nvml.Device) -> tuple[float, ...]:
        """Bytes in use on the device, and by this process (0 as long as it is not there)."""
        own = 0
        if self.why_not_own is None:
            try:
                own = device.memory_of_this_process() or 0
            except Unavailable as reason:
                self.why_not_own = str(reason)
        return device.memory().used, own

    def _end(self) -> Reading:
        used, own = (max(column) for column in zip(*(sample for _, sample in self._samples()), strict=True))
        if own and self.why_not_own is None:
            return Reading(own, self.unit, "nvml", "this process, polled")
        reason = self.why_not_own or "the driver does not list this process"
        note = f"device minus the {self.before.used / 1e6:.0f} MB in use before, polled; {reason}"
        return Reading(max(0, used - self.before.used), self.unit, "nvml", note)


class DeviceEnergy(_DeviceMeter):
    """Joules that one device used: from its counter, or from polled power where it has none."""

    unit = "J"

    def _begin(self) -> None:
        device = self._open()
        if device.is_instance:
            raise Unavailable("a MIG instance has no energy counter of its own, and its GPU's is everybody's")
        self.before: float | None = None
        try:
            self.before = device.energy()
        except Unavailable as reason:
            self.why_polled = str(reason)
            self._watch(Poll(lambda: (device.power(),), self.every))

    def _end(self) -> Reading:
        assert self.device is not None
        if self.before is None:
            return self._integral()
        joules = self.device.energy() - self.before
        if joules < 0:
            raise Unavailable("the energy counter went back: the driver was loaded anew")
        return Reading(joules, self.unit, "nvml", "the whole device")

    def _integral(self) -> Reading:
        """By trapezoids. The sensor of some GPUs (A100, H100) looks at 25 of every 100 ms only."""
        samples = [(at, watts) for at, (watts,) in self._samples()]
        joules = sum((end - begin) * (one + other) / 2 for (begin, one), (end, other) in pairwise(samples))
        note = f"the whole device, integrated over {len(samples)} samples; {self.why_polled}"
        return Reading(joules, self.unit, "nvml power polling", note)


class Utilisation(_DeviceMeter):
    """Mean per cent of the time in which a kernel ran on the device, over what the driver's samples say."""

    unit = "%"

    def _begin(self) -> None:
        device = self._open()
        self._watch(Poll(lambda: (device.utilisation(),), self.every))

    def _end(self) -> Reading:
        values = [value for _, (value,) in self._samples()]
        return Reading(sum(values) / len(values), self.unit, "nvml", "the whole device, all processes")


class CudaAllocator(Meter):
    """Peak bytes that torch's caching allocator had reserved on a device; the note has those in use by tensors."""

    unit = "bytes"

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.allocated: int | None = None
        """Peak bytes of tensors, once stopped."""

    def _begin(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.device)

    def _end(self) -> Reading:
        torch.cuda.synchronize(self.device)
        self.allocated = torch.cuda.max_memory_allocated(self.device)
        reserved = torch.cuda.max_memory_reserved(self.device)
        return Reading(reserved, self.unit, "torch.cuda", f"reserved; {self.allocated / 1e6:.1f} MB of it by tensors")
