"""Meters of a GPU against a driver whose memory, energy and failures are known."""

import os
import time
from types import SimpleNamespace

import pytest
import torch

from harness.cost import gpu, memory, nvml
from harness.cost.gpu import CudaAllocator, DeviceEnergy, DeviceMemory, Utilisation
from harness.cost.meters import Unavailable

ONE = ["GPU-1111"]
EVERY = 0.002
METERS = {kind.__name__: kind for kind in (DeviceMemory, DeviceEnergy, Utilisation)}


def watched(meter):
    """Wait until the meter has looked at what the driver says now."""
    before = len(meter.poll.samples)
    for _ in range(2000):
        if meter.poll is None or meter.poll.fault or len(meter.poll.samples) > before + 1:
            return
        time.sleep(EVERY)
    raise AssertionError("the poll does not go on")


def measured(driver, meter, *states):
    """The reading of a meter while the driver goes through these states, of which the first is there at the start."""
    driver.state(**states[0])
    meter.start()
    for state in states[1:]:
        driver.state(**state)
        if meter.poll:
            watched(meter)
    return meter.stop()


def test_memory_of_this_process_is_its_peak(driver):
    own = [{"pid": os.getpid(), "own": megabytes * 10**6, "used": 10**10} for megabytes in (500, 700, 2100, 900)]
    found = measured(driver, DeviceMemory(ONE, EVERY), *own)
    assert (found.value, found.unit, found.source) == (2100 * 10**6, "bytes", "nvml")
    assert found.note.startswith("this process")


def test_a_process_that_appears_on_the_way_is_found(driver):
    found = measured(driver, DeviceMemory(ONE, EVERY), {"used": 10}, {"pid": os.getpid(), "own": 55, "used": 65})
    assert found.value == 55


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        ({}, "does not list this process"),
        ({"pid": os.getpid() + 1, "own": 99}, "does not list this process"),
        ({"pid": os.getpid(), "own": -1}, "does not show the memory of a process"),
    ],
)
def test_memory_is_the_devices_less_what_was_used_before_where_the_driver_does_not_show_ours(driver, shown, reason):
    curve = [{"used": used * 10**6, "reserved": 5 * 10**8} | shown for used in (3000, 3400, 4700, 3100)]
    found = measured(driver, DeviceMemory(ONE, EVERY), *curve)
    assert found.value == 1700 * 10**6
    assert found.note.startswith("device minus the 3000 MB in use before")
    assert found.note.endswith(reason)


def test_in_a_container_a_process_id_may_be_a_strangers(driver, monkeypatch):
    monkeypatch.setattr(nvml, "in_container", lambda: True)
    state = {"pid": os.getpid(), "own": 10**9, "used": 3 * 10**9}
    found = measured(driver, DeviceMemory(ONE, EVERY), state, {"used": 5 * 10**9})
    assert found.value == 2 * 10**9
    assert "PID namespace" in found.note


@pytest.mark.parametrize("code", [3, 13])
def test_the_old_memory_call_serves_where_there_is_no_new_one(driver, code):
    driver.fail("nvmlDeviceGetMemoryInfo_v2", code)
    curve = [{"used": used, "reserved": 500} for used in (100, 900)]
    assert measured(driver, DeviceMemory(ONE, EVERY), *curve).value == 800


def test_the_drivers_reserve_is_apart(driver):
    driver.state(used=100, reserved=40, total=1000)
    device = nvml.Device(ONE)
    assert device.memory() == nvml.DeviceUse(100, 40, 1000)
    driver.fail("nvmlDeviceGetMemoryInfo_v2", 13)
    assert device.memory() == nvml.DeviceUse(140, 0, 1000)
    device.close()


def test_energy_is_the_counters_difference(driver):
    found = measured(driver, DeviceEnergy(ONE), {"energy": 2**40 + 500}, {"energy": 2**40 + 1_234_500})
    assert (found.value, found.unit, found.source) == (pytest.approx(1234), "J", "nvml")


def test_a_counter_that_goes_back_is_no_energy(driver):
    found = measured(driver, DeviceEnergy(ONE), {"energy": 500}, {"energy": 100})
    assert found.value is None
    assert "went back" in found.note


def test_power_is_polled_where_there_is_no_counter_and_labelled(driver):
    """A constant power, and one that rises by a step: the integral lies between the two ends."""
    driver.fail("nvmlDeviceGetTotalEnergyConsumption", 3)
    driver.state(power=150_000)
    meter = DeviceEnergy(ONE, EVERY)
    begin = time.perf_counter()
    meter.start()
    time.sleep(0.1)
    found = meter.stop()
    seconds = time.perf_counter() - begin
    assert found.value == pytest.approx(150 * seconds, rel=0.1)
    assert found.source == "nvml power polling"
    assert "nvmlDeviceGetTotalEnergyConsumption: Not Supported" in found.note

    meter.start()
    driver.state(power=300_000)
    for _ in range(20):
        watched(meter)
    length = meter.poll.samples[-1][0]
    assert 150 * length * 0.9 < meter.stop().value


def test_polled_power_is_integrated_by_trapezoids(monkeypatch):
    meter = DeviceEnergy(ONE)
    meter.why_polled = "no counter"
    monkeypatch.setattr(meter, "_samples", lambda: [(0.0, (100.0,)), (1.0, (200.0,)), (3.0, (200.0,)), (3.5, (0.0,))])
    assert meter._integral().value == pytest.approx(150 + 400 + 50)


def test_utilisation_is_the_mean_of_what_was_seen(driver):
    meter = Utilisation(ONE, EVERY)
    driver.state(busy=80)
    meter.start()
    watched(meter)
    assert meter.stop().value == 80
    found = measured(driver, meter, {"busy": 0}, {"busy": 100})
    assert 0 < found.value < 100
    assert found.unit == "%"


@pytest.mark.parametrize("kind", METERS)
def test_the_device_is_the_one_of_the_uuid_whatever_its_number(driver, kind):
    """GPU 0 uses 7 bytes, 5 mJ and nothing else changes."""
    driver.state(used=100, energy=0)
    meter = METERS[kind](["MIG-0000", "GPU-0000"])
    meter.start()
    driver.state(used=900, energy=10**6)
    found = meter.stop()
    assert found.value == 0
    assert driver.references == 0


@pytest.mark.parametrize(
    ("visible", "index", "uuid", "expected"),
    [
        (None, 0, "1111", ["MIG-1111", "GPU-1111"]),
        ("2,1", 1, "1111", ["MIG-1111", "GPU-1111"]),
        ("GPU-1111", 0, "GPU-1111", ["MIG-1111", "GPU-1111"]),
        ("MIG-2222-2", 0, "2222", ["MIG-2222-2", "MIG-2222", "GPU-2222"]),
        ("", 0, "MIG-2222-1", ["MIG-2222-1", "GPU-2222-1"]),
    ],
)
def test_the_names_of_a_cuda_device(monkeypatch, visible, index, uuid, expected):
    assert nvml.uuids_of(index, uuid, visible) == expected
    properties = SimpleNamespace(uuid=uuid)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    assert gpu.uuids_of(torch.device("cuda", index)) == expected


def test_an_instance_of_a_divided_gpu(driver):
    assert measured(driver, DeviceMemory(["MIG-2222-2"], EVERY), {"used": 100}, {"used": 400}).value == 300
    energy = measured(driver, DeviceEnergy(["MIG-2222-2"]), {})
    assert energy.value is None
    assert "MIG" in energy.note
    assert "nvmlDeviceGetUtilizationRates: Not Supported" in measured(driver, Utilisation(["MIG-2222-2"]), {}).note


@pytest.mark.parametrize(("instances", "works"), [(0, False), (1, True), (2, False)])
def test_a_divided_gpu_stands_for_its_only_instance(driver, instances, works):
    found = measured(driver, DeviceMemory(["GPU-2222"], EVERY), {"instances": instances, "used": 100}, {"used": 400})
    assert found.value == (300 if works else None)
    assert works or f"divided into {instances} MIG instances" in found.note
    assert measured(driver, DeviceEnergy(["GPU-2222"]), {}).value is None


CODES = {3: "Not Supported", 4: "Insufficient Permissions", 15: "GPU is lost", 999: "Unknown Error"}
NEEDED = {
    "DeviceMemory": ["nvmlInit", "nvmlDeviceGetHandleByUUID"],
    "DeviceEnergy": ["nvmlInit", "nvmlDeviceGetHandleByUUID"],
    "Utilisation": ["nvmlInit", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetUtilizationRates"],
}
HELPFUL = ["nvmlShutdown", "nvmlDeviceGetMigMode", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetComputeRunningProcesses",
           "nvmlDeviceGetTotalEnergyConsumption"]  # fmt: skip
"""Calls without which there is still a figure."""


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("kind", METERS)
def test_an_error_at_any_call_leaves_a_figure_or_its_reason(driver, kind, code):
    for call in NEEDED[kind]:
        driver.fail(call, code)
        found = measured(driver, METERS[kind](ONE, EVERY), {"used": 1})
        assert (found.value, found.source) == (None, "unavailable"), call
        assert found.note.startswith(f"{call}: {CODES[code]}"), call
        assert driver.references == 0, call
    for call in HELPFUL:
        driver.fail(call, code)
        assert measured(driver, METERS[kind](ONE, EVERY), {"used": 1}).value is not None, call


@pytest.mark.parametrize("kind", METERS)
def test_a_device_that_is_lost_half_way_at_any_point(driver, kind):
    """From the n-th call on nothing works: the reading is whole, or it says that the GPU was lost."""
    whole = 0
    for since in range(1, 40):
        driver.fail("*", 15, since)
        meter = METERS[kind](ONE, EVERY)
        meter.start()
        if since > 12 and meter.poll:
            watched(meter)
        found = meter.stop()
        if found.value is None:
            assert found.note.endswith("GPU is lost") or "GPU is lost (" in found.note, since
        else:
            whole += 1
    assert whole


def test_a_figure_of_our_own_that_breaks_off_is_not_taken_for_the_peak(driver):
    """The driver stops to tell processes apart before the peak: the device's own curve is what is left."""
    driver.state(pid=os.getpid(), own=100, used=1000)
    meter = DeviceMemory(ONE, EVERY)
    meter.start()
    driver.fail("nvmlDeviceGetComputeRunningProcesses", 4)
    driver.state(own=900, used=1800)
    watched(meter)
    found = meter.stop()
    assert found.value == 800
    assert found.note.endswith("nvmlDeviceGetComputeRunningProcesses: Insufficient Permissions")


@pytest.mark.parametrize("kind", [*METERS.values(), CudaAllocator])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_a_reason(kind):
    meter = kind(torch.device("cuda", 0))
    meter.start()
    found = meter.stop()
    assert found.value is None
    assert found.note


def test_without_the_library_there_is_a_reason(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr("pynvml.nvmlLib", None)
    monkeypatch.setattr("pynvml.CDLL", missing)
    with pytest.raises(Unavailable, match="nvmlInit: NVML Shared Library Not Found"):
        nvml.Device(ONE)


class FakeCuda:
    """Torch's allocator and device properties, without a GPU."""

    def __init__(self, monkeypatch):
        for name in ("reset_peak_memory_stats", "synchronize"):
            monkeypatch.setattr(torch.cuda, name, lambda device: None)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 600)
        monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 800)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1111"))


def test_memory_on_a_gpu_is_what_the_driver_shows(driver, monkeypatch):
    FakeCuda(monkeypatch)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    driver.state(used=100)

    def work():
        driver.state(used=2100)
        time.sleep(0.1)
        driver.state(used=100)

    found = memory.peak_memory(work, torch.device("cuda"))
    assert (found.peak_bytes, found.working_bytes) == (2000, 600)
    assert found.source.startswith("nvml + torch.cuda (device minus")


def test_memory_on_a_gpu_without_nvml_is_the_allocators(driver, monkeypatch):
    FakeCuda(monkeypatch)
    driver.fail("nvmlInit", 999)
    found = memory.peak_memory(lambda: None, torch.device("cuda"))
    assert (found.peak_bytes, found.working_bytes) == (800, 600)
    assert found.source == "torch.cuda (nvml unavailable: nvmlInit: Unknown Error)"
    with pytest.raises(ZeroDivisionError):
        memory.peak_memory(lambda: 1 / 0, torch.device("cuda"))


def test_memory_on_a_gpu_of_which_no_one_tells_is_no_figure(driver, monkeypatch):
    FakeCuda(monkeypatch)

    def broken(device):
        raise RuntimeError("no allocator")

    monkeypatch.setattr(torch.cuda, "max_memory_reserved", broken)
    found = memory.peak_memory(lambda: None, torch.device("cuda"))
    assert found.working_bytes is None
    assert found.source.startswith("nvml (device minus")
    assert "torch.cuda unavailable: RuntimeError: no allocator" in found.source
    driver.fail("nvmlInit", 999)
    found = memory.peak_memory(lambda: None, torch.device("cuda"))
    assert (found.peak_bytes, found.working_bytes) == (None, None)
    assert found.source.startswith("unavailable (nvml unavailable: nvmlInit")


def test_a_driver_that_does_not_close_takes_no_clock_away(monkeypatch):
    def close():
        raise Unavailable("nvmlShutdown: Unknown Error")

    monkeypatch.setattr(gpu, "uuids_of", lambda device: ONE)
    opened = SimpleNamespace(clock={"sm": 1500.0, "memory": 900.0}.get, close=close)
    monkeypatch.setattr(nvml, "Device", lambda names: opened)
    assert gpu.clocks(torch.device("cuda")) == {"sm_mhz": 1500.0, "memory_mhz": 900.0}
