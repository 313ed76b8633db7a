"""NVML as nvidia-ml-py loads it, and the list of devices that the doctor shows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cost import nvml
from harness.cost.meters import Unavailable

DEVICES = [{"index": i, "name": f"Stub {i}", "uuid": f"GPU-{i}{i}{i}{i}"} for i in range(3)]


def test_the_inventory(driver):
    assert nvml.inventory() == {"driver": "999.1", "library": "12.999.1", "devices": DEVICES}
    assert driver.references == 0


@pytest.mark.parametrize("call", ["nvmlDeviceGetName", "nvmlDeviceGetUUID", "nvmlSystemGetDriverVersion"])
def test_an_inventory_with_a_gap(driver, call):
    driver.fail(call, 4)
    text = json.dumps(nvml.inventory())
    assert f"unavailable: {call}: Insufficient Permissions" in text


def test_a_device_without_permission_is_one_gap_in_the_inventory(driver):
    driver.fail("nvmlDeviceGetHandleByIndex", 4, since=3)
    *others, last = nvml.inventory()["devices"]
    assert others == DEVICES[:2]
    assert last == {"index": 2, "unavailable": "nvmlDeviceGetHandleByIndex: Insufficient Permissions"}


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetCount"])
def test_no_inventory(driver, call):
    driver.fail(call, 999)
    with pytest.raises(Unavailable, match=f"{call}: Unknown Error"):
        nvml.inventory()
    assert driver.references == 0


def test_the_library_is_found_as_the_loader_finds_it(nvml_folder, tmp_path):
    """In a fresh process, by the command that a user runs."""
    script = "import sys; from harness.cli.main import main; main(['doctor', '--json', '--out', sys.argv[1]])"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(nvml_folder), "STOCKPOT_ARCHIVES": str(tmp_path)}
    environment.pop("NVML_STUB_FAIL", None)
    command = [sys.executable, "-c", script, str(tmp_path)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, check=True)
    assert json.loads(done.stdout)["nvml"] == {"driver": "999.1", "library": "12.999.1", "devices": DEVICES}
