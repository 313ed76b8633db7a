"""Peak memory of a known allocation, each in a fresh process."""

import json

import psutil
import pytest
import torch

from harness.cost import memory
from tests.cost.deep import DEEP
from tests.cost.fresh import printed

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


@pytest.fixture(scope="module")
def processes():
    """What two processes found: one fresh, and one that had done larger work before."""
    script = SCRIPT.format(megabytes=MEGABYTES)
    outputs = [json.loads(printed(script, *before)) for before in ((), ("before",))]
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
        assert found.source == ("VmHWM" if can_reset() else "VmHWM: the peak of all that the process did")


def test_where_the_peak_cannot_be_reset_it_is_all_that_is_known(monkeypatch):
    monkeypatch.setattr(memory, "_reset_peak", lambda: False)
    found = memory.peak_memory(lambda: None, torch.device("cpu"))
    assert found.source.endswith(": the peak of all that the process did")
    assert found.peak_bytes > 0
    assert found.working_bytes is None


def test_without_proc_the_peak_comes_from_getrusage(monkeypatch):
    expected = memory._peak()
    monkeypatch.setattr(memory, "_status", lambda field, pid="self": None)
    found = memory.peak_memory(lambda: None, torch.device("cpu"))
    assert found.peak_bytes == pytest.approx(expected, rel=0.5)
    assert found.working_bytes is None
    assert found.source.startswith("getrusage")


def test_a_meter_that_fails_gives_no_figure(monkeypatch):
    def broken(*_, **__):
        raise psutil.AccessDenied

    monkeypatch.setattr(memory.psutil, "Process", broken)
    found = memory.peak_memory(lambda: None, torch.device("cpu"))
    assert (found.peak_bytes, found.working_bytes) == (None, None)
    assert "AccessDenied" in found.source


def test_another_allocator_than_glibcs_is_left_alone(monkeypatch):
    """Its blocks have no header of glibc's, and would be read as if they had."""
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    assert memory.peak_memory(lambda: torch.ones(1000), torch.device("cpu")).peak_bytes > 0


def test_the_work_is_done_once_and_its_error_is_not_swallowed():
    calls = []
    memory.peak_memory(lambda: calls.append(1), torch.device("cpu"))
    assert calls == [1]
    with pytest.raises(ZeroDivisionError):
        memory.peak_memory(lambda: 1 / 0, torch.device("cpu"))


HOLES = """
import torch
from harness.cost.memory import peak_memory
pieces = [torch.ones(60_000, dtype=torch.uint8) for _ in range(3300)]
last = pieces[-1]
del pieces
"""


def working_with_holes(work):
    """Working bytes of a function's code in a process whose heap has 3,300 holes of 60 kB."""
    return int(printed(f"{HOLES}{work}\nprint(peak_memory(work, torch.device('cpu')).working_bytes)"))


@linux
def test_what_lies_free_in_the_heap_does_not_hide_the_need():
    work = "work = lambda: [torch.ones(60_000, dtype=torch.uint8) for _ in range(1700)]"
    assert working_with_holes(work) == pytest.approx(1700 * 60_000, rel=0.1)


@linux
def test_what_was_freed_into_the_heap_does_not_count_as_needed_by_what_follows():
    work = """
def work():
    [torch.ones(50_000, dtype=torch.uint8) for _ in range(3000)]  # each would fit into one of the holes
    torch.ones(250_000_000, dtype=torch.uint8)
"""
    assert working_with_holes(work) == pytest.approx(250_000_000, rel=0.1)


CHILD = """
import sys
held = bytearray(200 * 10**6)
for i in range(0, len(held), 4096):
    held[i] = 1
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("ends", [True, False], ids=["a child that has ended", "a child that lives on"])
def test_children_of_the_work_are_added_and_others_are_not(ends):
    """In a process of its own: what earlier children of this one took would hide a smaller one."""
    script = f"""
import subprocess, sys, time
from harness.cost.memory import ResidentPeak
def begin():
    child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    child.stdout.readline()
    return child
def end(child):
    child.communicate()
other = begin()
meter = ResidentPeak()
meter.start()
child = begin()
if {ends}:
    time.sleep(0.3)
    end(child)
found = meter.stop()
for each in {{child, other}}:
    if each.poll() is None:
        end(each)
meter.start()
alone = meter.stop()
print(found.value - alone.value, "children" in found.note, "children" in alone.note)
"""
    more, named, still = printed(script).split()
    assert float(more) == pytest.approx(210e6, rel=0.1)
    assert (named, still) == ("True", "False")


def deep(folder, what):
    return json.loads(printed(DEEP, str(folder), what, "cpu"))


@linux
def test_a_variant_needs_the_memory_of_the_models_it_holds_in_whatever_order_they_are_measured(tmp_path):
    """Each variant in a fresh process, as the engine has it."""
    size = deep(tmp_path, "prepare")
    assert size > 80e6
    found = {name: deep(tmp_path, name)["working"] for name in ("ensemble", "merge", "member")}
    for name, models in (("ensemble", 3), ("merge", 1), ("member", 1)):
        assert found[name] == pytest.approx(models * size, rel=0.1), name
    assert deep(tmp_path, "ensemble")["working"] == pytest.approx(found["ensemble"], rel=0.02)
