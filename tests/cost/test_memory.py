"""Peak memory of a known allocation, each in a fresh process."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from harness.cost import memory

MEGABYTES = 300
SCRIPT = """
import json, sys, torch
from dataclasses import asdict
from harness.cost.memory import peak_memory

SIZE = {megabytes} * 10**6

def held():
    return torch.ones(SIZE, dtype=torch.uint8)

def freed_before_the_end():
    torch.ones(SIZE, dtype=torch.uint8)

def nothing():
    pass

def twice():
    one = torch.ones(SIZE, dtype=torch.uint8)
    return one, one.clone()

def earlier_work():
    torch.ones(2 * SIZE, dtype=torch.uint8)

if sys.argv[1:] == ["before"]:
    earlier_work()
works = [nothing, freed_before_the_end, held, twice]
print(json.dumps([asdict(peak_memory(work, torch.device("cpu"))) for work in works]))
"""


def start(*arguments):
    script = SCRIPT.format(megabytes=MEGABYTES)
    root = Path(__file__).parents[2]
    return subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True, cwd=root)


@pytest.fixture(scope="module")
def processes():
    """What two processes found: one fresh, and one that had done larger work before."""
    running = [start(), start("before")]
    outputs = [json.loads(process.communicate()[0]) for process in running]
    names = ("nothing", "freed", "held", "twice")
    return [{n: memory.Memory(**record) for n, record in zip(names, found, strict=True)} for found in outputs]


@pytest.fixture(scope="module")
def fresh(processes):
    return processes[0]


def can_reset():
    return memory._reset_peak()


linux = pytest.mark.skipif(not can_reset(), reason="this kernel does not let a process forget its peak")


@linux
def test_a_known_allocation_is_found_to_the_tenth(fresh):
    for name, copies in (("freed", 1), ("held", 1), ("twice", 2)):
        assert fresh[name].working_bytes == pytest.approx(copies * MEGABYTES * 1e6, rel=0.1), name
    assert fresh["nothing"].working_bytes < 0.02 * MEGABYTES * 1e6


@linux
def test_what_ran_before_is_forgotten(processes):
    fresh, later = processes
    assert later["freed"].working_bytes == pytest.approx(MEGABYTES * 1e6, rel=0.1)
    assert later["freed"].peak_bytes == pytest.approx(fresh["freed"].peak_bytes, rel=0.1)


def test_the_peak_is_of_the_whole_process_and_the_source_is_named(fresh):
    for found in fresh.values():
        assert found.peak_bytes > found.working_bytes >= 0
        assert found.peak_bytes > 50e6  # Python and torch alone
        assert found.source == ("VmHWM" if can_reset() else "VmHWM: peak of the whole process")


def test_where_the_peak_cannot_be_reset_the_source_says_what_the_figure_is(monkeypatch):
    monkeypatch.setattr(memory, "_reset_peak", lambda: False)
    found = memory.peak_memory(lambda: None, torch.device("cpu"))
    assert found.source == "VmHWM: peak of the whole process"
    assert found.peak_bytes > 0


def test_without_proc_the_peak_comes_from_getrusage(monkeypatch):
    expected = memory._peak()
    monkeypatch.setattr(memory, "_status", lambda field, pid="self": None)
    found = memory.peak_memory(lambda: None, torch.device("cpu"))
    assert found.peak_bytes == pytest.approx(expected, rel=0.5)
    assert asdict(found).keys() == {"peak_bytes", "working_bytes", "source"}


def test_the_work_is_done_once_and_its_error_is_not_swallowed():
    calls = []
    memory.peak_memory(lambda: calls.append(1), torch.device("cpu"))
    assert calls == [1]
    with pytest.raises(ZeroDivisionError):
        memory.peak_memory(lambda: 1 / 0, torch.device("cpu"))
