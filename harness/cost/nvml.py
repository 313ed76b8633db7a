"""NVIDIA's management library, found by UUID: what the driver says about one GPU or one MIG instance.

Every failure is ``Unavailable`` with the name of the call and the driver's words. Sources: NVML API reference;
nvidia-ml-py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pynvml

from harness.cost.meters import Unavailable

FIRST_NAMESPACE = 0xEFFFFFFC
"""The inode of the machine's own PID namespace (PROC_PID_INIT_INO in Linux)."""


def call(function: str, *arguments: Any) -> Any:
    """One call of nvidia-ml-py; ``Unavailable`` with the driver's words where it fails."""
    try:
        return getattr(pynvml, function)(*arguments)
    except pynvml.NVMLError as error:
        raise Unavailable(f"{function}: {error}") from None


@dataclass(frozen=True)
class DeviceUse:
    """Bytes of a device in use, by all processes, and set aside by the driver for itself."""

    used: int
    reserved: int
    total: int


class Device:
    """One GPU or MIG instance, open until ``close``.

    ``uuids`` are tried in turn: NVML's numbering ignores CUDA_VISIBLE_DEVICES, a UUID cannot be mistaken.
    """

    def __init__(self, uuids: Sequence[str]) -> None:
        call("nvmlInit")
        try:
            handle, uuid = _found(uuids)
            self.handle, self.is_instance = (handle, True) if uuid.startswith("MIG-") else _undivided(handle, uuid)
        except Unavailable:
            self.close()
            raise

    def close(self) -> None:
        call("nvmlShutdown")

    def memory(self) -> DeviceUse:
        """From version 2 of the call, which keeps the driver's reserve apart; older drivers count it as used."""
        try:
            info = call("nvmlDeviceGetMemoryInfo", self.handle, pynvml.nvmlMemory_v2)
        except Unavailable:
            info = call("nvmlDeviceGetMemoryInfo", self.handle)
        return DeviceUse(info.used, getattr(info, "reserved", 0), info.total)

    def memory_of_this_process(self) -> int | None:
        """Bytes, the CUDA context included; None as long as the process is not on the device.

        ``Unavailable`` where the driver does not say, and in a PID namespace of its own (a container): the driver's
        process ids are the machine's, so one that equals ours there may be a stranger's.
        """
        if in_container():
            raise Unavailable("the process has a PID namespace of its own, so the driver's process ids are not its")
        for process in call("nvmlDeviceGetComputeRunningProcesses", self.handle):
            if process.pid == os.getpid():
                if process.usedGpuMemory is None:
                    raise Unavailable("the driver does not show the memory of a process")
                return int(process.usedGpuMemory)
        return None

    def energy(self) -> float:
        """Joules since the driver was loaded (Volta and later)."""
        return call("nvmlDeviceGetTotalEnergyConsumption", self.handle) / 1000

    def power(self) -> float:
        """Watts."""
        return call("nvmlDeviceGetPowerUsage", self.handle) / 1000

    def clock(self, domain: Literal["sm", "memory"]) -> float:
        """MHz at this moment."""
        kind = {"sm": pynvml.NVML_CLOCK_SM, "memory": pynvml.NVML_CLOCK_MEM}[domain]
        return float(call("nvmlDeviceGetClockInfo", self.handle, kind))

    def utilisation(self) -> float:
        """Per cent of the last sample period in which a kernel ran."""
        return float(call("nvmlDeviceGetUtilizationRates", self.handle).gpu)


def _found(uuids: Sequence[str]) -> tuple[Any, str]:
    reason = "no UUID of the device is known"
    for uuid in uuids:
        try:
            return call("nvmlDeviceGetHandleByUUID", uuid), uuid
        except Unavailable as failure:
            reason = f"{failure} ({uuid})"
    raise Unavailable(reason)


def _undivided(handle: Any, uuid: str) -> tuple[Any, bool]:
    """The handle of a GPU, and False; of one that is divided, the handle of its only MIG instance, and True."""
    try:
        divided, _ = call("nvmlDeviceGetMigMode", handle)
    except Unavailable:  # a GPU that knows no MIG
        return handle, False
    if not divided:
        return handle, False
    instances = []
    for index in range(call("nvmlDeviceGetMaxMigDeviceCount", handle)):
        try:
            instances.append(call("nvmlDeviceGetMigDeviceHandleByIndex", handle, index))
        except Unavailable:  # no instance at this place
            continue
    if len(instances) != 1:
        raise Unavailable(
            f"{uuid} is divided into {len(instances)} MIG instances, and which one is in use is not known: name it in "
            "CUDA_VISIBLE_DEVICES by its MIG- UUID"
        )
    return instances[0], True


def in_container() -> bool:
    """Whether this process lives in a PID namespace that is not the machine's."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino != FIRST_NAMESPACE
    except OSError:
        return False


def uuids_of(index: int, uuid: str, visible: str | None) -> list[str]:
    """The names under which NVML may know a CUDA device, best first.

    Args:
        index: of the device among those that CUDA sees.
        uuid: as CUDA gives it, which of a MIG instance may be its own or its GPU's.
        visible: CUDA_VISIBLE_DEVICES, whose entries may be UUIDs.
    """
    entries = [entry.strip() for entry in (visible or "").split(",")]
    named = [entries[index]] if index < len(entries) and entries[index].startswith("MIG-") else []
    bare = uuid.removeprefix("GPU-").removeprefix("MIG-")
    return [*named, f"MIG-{bare}", f"GPU-{bare}"]


def inventory() -> dict[str, Any]:
    """Driver, library, and all devices that NVML shows, for people; ``Unavailable`` where there is no NVML."""
    call("nvmlInit")
    try:
        devices = [_described(index) for index in range(call("nvmlDeviceGetCount"))]
        versions = {
            name: _or_reason(function)
            for name, function in (("driver", "nvmlSystemGetDriverVersion"), ("library", "nvmlSystemGetNVMLVersion"))
        }
        return {**versions, "devices": devices}
    finally:
        call("nvmlShutdown")


def _described(index: int) -> dict[str, Any]:
    try:
        handle = call("nvmlDeviceGetHandleByIndex", index)
    except Unavailable as reason:
        return {"index": index, "unavailable": str(reason)}
    names = {"name": _or_reason("nvmlDeviceGetName", handle), "uuid": _or_reason("nvmlDeviceGetUUID", handle)}
    return {"index": index, **names}


def _or_reason(function: str, *arguments: Any) -> str:
    try:
        return str(call(function, *arguments))
    except Unavailable as reason:
        return f"unavailable: {reason}"
