"""Energy for one example, on a meter and a clock of our own, and on a driver whose counter is known."""

import time
from types import SimpleNamespace

import pytest
import torch

from harness.cost import energy
from harness.cost.gpu import DeviceEnergy
from harness.cost.meters import Meter, Reading, Unavailable


class Clock:
    """Stands in for ``time``, with a device that draws 20 W, and 80 W more while it works."""

    def __init__(self, monkeypatch):
        self.now, self.joules = 0.0, 0.0
        monkeypatch.setattr(energy, "time", SimpleNamespace(perf_counter=lambda: self.now, sleep=self.rest))

    def rest(self, seconds):
        self.now += seconds
        self.joules += 20 * seconds

    def work(self, seconds):
        self.now += seconds
        self.joules += 100 * seconds


class Counter(Meter):
    """Reads the clock's joules, unless told that it cannot."""

    unit = "J"

    def __init__(self, clock, fault=None):
        self.clock, self.fault = clock, fault

    def _begin(self):
        self.before = self.clock.joules

    def _end(self):
        if self.fault:
            raise Unavailable(self.fault)
        return Reading(self.clock.joules - self.before, "J", "a meter", "all of it")


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


IDLE = Reading(20.0, "W", "a meter")


def test_a_counter_that_stands_still_is_none(clock):
    clock.work, clock.rest = (lambda seconds: setattr(clock, "now", clock.now + seconds),) * 2
    found = energy.per_example(Counter(clock), IDLE, lambda: clock.work(1), examples=5)
    assert (found.gross, found.net) == (None, None)
    assert found.source == "unavailable: the counter of a meter did not move in 5.0 s"


@pytest.mark.parametrize("seconds", [0.3, 2.0, 7.0])
def test_joules_of_an_example_whatever_the_length_of_a_batch(clock, seconds):
    begin = clock.now
    found = energy.per_example(Counter(clock), IDLE, lambda: clock.work(seconds), examples=50)
    assert found.gross == pytest.approx(100 * seconds / 50)
    assert found.net == pytest.approx(80 * seconds / 50)
    assert clock.now - begin - seconds >= energy.WINDOW_SECONDS  # the first call is a warm-up and not counted
    assert found.source.startswith("a meter: all of it; idle 20.0 W; window of ")


def test_twice_the_work_is_twice_the_energy(clock):
    one, two = (energy.per_example(Counter(clock), IDLE, lambda s=s: clock.work(s), examples=10) for s in (0.25, 0.5))
    assert two.gross == pytest.approx(2 * one.gross)
    assert two.net == pytest.approx(2 * one.net)


def test_the_window_is_as_long_as_asked_and_holds_one_call_at_least(clock):
    found, seconds, times = energy.window(Counter(clock), lambda: clock.work(0.5), seconds=1.2)
    assert (found.value, seconds, times) == (pytest.approx(150), pytest.approx(1.5), 3)
    assert energy.window(Counter(clock), lambda: clock.work(0.5), seconds=0)[2] == 1


def test_idle_power_is_that_of_a_whole_window(clock, monkeypatch):
    monkeypatch.setattr(energy, "meter_for", lambda device: Counter(clock))
    found = energy.idle_watts(torch.device("cpu"))
    assert (found.value, found.unit) == (pytest.approx(20), "W")
    assert clock.now >= energy.WINDOW_SECONDS


def test_a_meter_without_a_reading_leaves_no_figure(clock):
    found = energy.per_example(Counter(clock, "unplugged"), IDLE, lambda: clock.work(1), examples=5)
    assert found == energy.Energy(None, None, "unavailable: unplugged")
    silent = Reading(None, "W", "unavailable", "unplugged")
    found = energy.per_example(Counter(clock), silent, lambda: clock.work(1), examples=5)
    assert (found.gross, found.net) == (pytest.approx(20), None)
    assert found.source == "a meter: all of it; idle power unavailable: unplugged"


def test_whether_there_is_a_meter_takes_no_time(driver, monkeypatch):
    monkeypatch.setattr(energy, "meter_for", lambda device: DeviceEnergy(["GPU-1111"]))
    begin = time.perf_counter()
    for fault, expected in (("", None), ("nvmlInit", "nvmlInit: Insufficient Permissions")):
        driver.fail(fault or "nothing", 4)
        energy.why_unavailable.cache_clear()
        assert energy.why_unavailable(torch.device("cuda")) == expected
    assert time.perf_counter() - begin < 1
    energy.why_unavailable.cache_clear()


def test_energy_from_the_drivers_counter(driver):
    """250 J for every call of 50 examples."""
    spent = [0]

    def work():
        spent[0] += 250_000
        driver.state(energy=spent[0])
        time.sleep(0.01)

    found = energy.per_example(DeviceEnergy(["GPU-1111"]), Reading(0.0, "W", "nvml"), work, examples=50, seconds=0.1)
    assert found.gross == found.net == pytest.approx(5)
    assert found.source.startswith("nvml: the whole device; idle 0.0 W")
