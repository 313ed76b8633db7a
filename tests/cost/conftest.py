"""A driver without a GPU: nvml_stub.c, compiled and loaded by the real nvidia-ml-py."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pynvml
import pytest


class Driver:
    """What the stand-in knows, and which call of it fails."""

    def __init__(self, library, path, monkeypatch):
        self.library, self.path, self.monkeypatch = library, path, monkeypatch
        self.values = {"pid": 0}
        self.state()

    def state(self, **changes):
        """Change what the driver knows; written at once, since polls read meanwhile."""
        self.values |= changes
        draft = self.path.with_suffix(".draft")
        draft.write_text("".join(f"{key} {value}\n" for key, value in self.values.items()))
        os.replace(draft, self.path)

    def fail(self, call, code, since=1):
        """From its ``since``-th time on, this call ("*": any) returns this code."""
        self.monkeypatch.setenv("NVML_STUB_FAIL", f"{call} {code} {since}")

    @property
    def references(self):
        """How often it was initialised and not shut down."""
        return pynvml.nvmlLib.stub_references()


@pytest.fixture(scope="session")
def nvml_folder(tmp_path_factory):
    """A folder with a libnvidia-ml.so.1."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler: the stand-in for NVML cannot be built")
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("nvml_stub.c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(folder / "libnvidia-ml.so.1"), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return folder


@pytest.fixture
def driver(nvml_folder, tmp_path, monkeypatch):
    """The stand-in in this process, on the machine's own PID namespace; its state is to be set with ``state``."""
    library = ctypes.CDLL(str(nvml_folder / "libnvidia-ml.so.1"))
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setattr("harness.cost.nvml.in_container", lambda: False)
    monkeypatch.setenv("NVML_STUB_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("NVML_STUB_FAIL", raising=False)
    yield Driver(library, tmp_path / "state", monkeypatch)
    monkeypatch.delenv("NVML_STUB_FAIL", raising=False)
    while library.stub_references() > 0:
        library.nvmlShutdown()
