"""Laws of the meters on a real GPU; skipped where there is none (test_nvml.py has a stand-in for the driver).

Each kind of work runs in a process of its own, as a measurement does in a run.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from harness.checks.pools import independent, split
from harness.cost import energy, gpu, nvml
from harness.cost.gpu import CudaAllocator, DeviceEnergy, DeviceMemory, Utilisation
from harness.cost.meters import Poll
from harness.cost.parallel import AtOnce, can_run_at_once
from harness.systems.parts import MemberPart
from harness.systems.rules import Linear
from harness.systems.systems import OutputCombination
from tests.cost.deep import DEEP

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

ROOT = Path(__file__).parents[2]
GPU = torch.device("cuda")
MEGABYTE = 10**6


def opened():
    return nvml.Device(gpu.uuids_of(GPU))


def multiply(seconds):
    """Keep the device busy for so long; what was launched is done when it returns."""
    square = torch.randn(4096, 4096, device=GPU, dtype=torch.bfloat16)
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        for _ in range(20):
            square @ square
        torch.cuda.synchronize()


def test_the_driver_and_cuda_mean_the_same_device():
    device = opened()
    try:
        properties = torch.cuda.get_device_properties(GPU)
        assert properties.name in str(nvml.call("nvmlDeviceGetName", device.handle))
        memory = device.memory()
        assert memory.total >= properties.total_memory >= 0.9 * memory.total
        assert 0 < device.clock("sm") < 10_000
    finally:
        device.close()


def test_the_allocator_is_exact_and_the_driver_sees_what_it_took():
    torch.zeros(1, device=GPU)
    torch.cuda.empty_cache()
    allocator, driver = CudaAllocator(GPU), DeviceMemory(GPU)
    before = torch.cuda.memory_allocated(GPU)
    allocator.start()
    driver.start()
    held = torch.ones(1000 * MEGABYTE, dtype=torch.uint8, device=GPU)
    time.sleep(0.1)
    seen, reserved = driver.stop(), allocator.stop()
    assert allocator.allocated == pytest.approx(before + len(held), abs=2 << 20)  # its blocks are whole pages of 2 MiB
    assert reserved.value >= allocator.allocated
    assert seen.source == "nvml", seen
    own = "this process" in seen.note
    context = seen.value - reserved.value if own else 0
    assert 0 <= context < 2000 * MEGABYTE
    assert seen.value - context == pytest.approx(len(held), rel=0.1)


def test_peak_memory_of_a_variant_is_that_of_the_models_it_holds(tmp_path):
    def deep(what):
        command = [sys.executable, "-c", DEEP, str(tmp_path), what, "cuda"]
        return json.loads(subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout)

    size = deep("prepare")
    found = {name: deep(name) for name in ("ensemble", "merge", "member")}
    for name, models in (("ensemble", 3), ("merge", 1), ("member", 1)):
        assert found[name]["working"] == pytest.approx(models * size, rel=0.1), name
        assert found[name]["peak"] > found[name]["working"], name  # the context is in it
        assert "nvml + torch.cuda" in found[name]["source"]
    assert deep("ensemble")["working"] == found["ensemble"]["working"]


def test_members_at_once_give_what_they_give_one_after_another():
    """Also where the caller goes on at once, and the memory of an earlier batch is used again."""
    parts = [MemberPart(member, GPU) for member in independent(3).members]
    ensemble = OutputCombination(parts, Linear(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)))
    at_once = AtOnce(ensemble, GPU)
    batches = [split("test", 64).inputs.to(GPU) + k for k in range(8)]
    with torch.inference_mode():
        expected = [ensemble.log_probs(batch) for batch in batches]
        found = [at_once.log_probs(batch) for batch in batches]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert can_run_at_once(ensemble, GPU)
    assert not can_run_at_once(ensemble, torch.device("cpu"))


def test_the_energy_counter_and_polled_power_agree_and_work_costs_more_than_rest():
    device = opened()
    poll = Poll(lambda: (device.power(),), 0.02)
    meter = DeviceEnergy(GPU)
    try:
        torch.zeros(1, device=GPU)
        rest, rested, _ = energy.window(meter, lambda: time.sleep(0.1), seconds=3)
        multiply(1)  # the sensor averages over about a second
        poll.start()
        work, worked, _ = energy.window(meter, lambda: multiply(0.5), seconds=5)
        watts = [sample for _, (sample,) in poll.stop()]
    finally:
        device.close()
    assert rest.source == work.source == "nvml"
    assert work.value / worked > 1.5 * rest.value / rested > 0
    assert work.value / worked == pytest.approx(sum(watts) / len(watts), rel=0.15)


def test_utilisation_tells_work_from_rest():
    meter = Utilisation(GPU, every=0.05)
    multiply(1)
    meter.start()
    multiply(2)
    busy = meter.stop()
    time.sleep(2)
    meter.start()
    time.sleep(1)
    idle = meter.stop()
    assert busy.value > 80
    assert idle.value < 20


def test_a_lost_permission_or_an_unknown_device_is_a_reading_with_a_reason():
    meter = DeviceMemory(["GPU-00000000-0000-0000-0000-000000000000"])
    meter.start()
    found = meter.stop()
    assert (found.value, found.source) == (None, "unavailable")
    assert "nvmlDeviceGetHandleByUUID" in found.note
