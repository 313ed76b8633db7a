"""Latency on systems that only wait, or that move a clock of our own: the ratio is what is known."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import binom

from harness.cost import latency
from harness.types import Combination

BATCH = torch.zeros(1, 1)


class Fake(Combination):
    """A system that notes when it is called and passes the time."""

    def __init__(self, name, pass_time, calls):
        self.name, self.pass_time, self.calls, self.details = name, pass_time, calls, {}

    def log_probs(self, batch):
        assert batch is BATCH
        assert torch.is_inference_mode_enabled()
        self.calls.append(self.name)
        self.pass_time()
        return batch

    def parts(self):
        return ()

    def save(self, folder):
        raise NotImplementedError


class Clock:
    """Stands in for ``time``; systems move it on."""

    def __init__(self, monkeypatch):
        self.now, self.calls = 100.0, []
        clocks = ("perf_counter", "process_time")
        monkeypatch.setattr(latency, "time", SimpleNamespace(**dict.fromkeys(clocks, lambda: self.now)))

    def system(self, name, seconds):
        """``seconds`` is a number, or a function of how many calls there were before."""

        def pass_time():
            before = len(self.calls) - 1
            self.now += seconds(before) if callable(seconds) else seconds

        return Fake(name, pass_time, self.calls)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def measure(candidate, reference, seconds=1.0):
    return latency.measure(lambda: candidate, lambda: reference, BATCH, seconds=seconds)


def test_four_times_the_time_is_a_ratio_of_four(clock):
    found = measure(clock.system("c", 0.008), clock.system("r", 0.002))
    assert (found.p50_ms, found.p95_ms) == (pytest.approx(8), pytest.approx(8))
    assert (found.ratio, found.ratio_low, found.ratio_high) == (pytest.approx(4),) * 3


def test_sleeping_four_times_as_long_is_a_ratio_near_four(monkeypatch):
    """On the real clock; what a loaded machine adds to both draws the ratio towards one."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    calls = []
    candidate, reference = (Fake(n, lambda s=s: time.sleep(s), calls) for n, s in (("c", 0.02), ("r", 0.005)))
    found = measure(candidate, reference, seconds=0.3)
    assert 2.5 < found.ratio < 5.5
    assert found.ratio_low <= found.ratio <= found.ratio_high
    assert found.p50_ms <= found.p95_ms
    assert found.clock == "wall"


def test_with_one_thread_waits_do_not_count_in_the_ratio(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def busy(wait):
        end = time.process_time() + 0.005
        while time.process_time() < end:
            pass
        time.sleep(wait)

    found = measure(Fake("c", lambda: busy(0.02), []), Fake("r", lambda: busy(0.0), []), seconds=0.3)
    assert found.clock == "processor"
    assert 0.8 < found.ratio < 1.25
    assert found.p50_ms >= 25


def test_quick_systems_are_loaded_anew_for_every_block_in_alternating_order(clock):
    loaded, calls = [], []

    def load(name):
        loaded.append(name)
        calls.append(len(clock.calls))
        return clock.system(name, 0.01)

    found = latency.measure(lambda: load("c"), lambda: load("r"), BATCH, seconds=1.2)
    assert loaded == ["r", "c", *["r", "c", "c", "r"] * (len(loaded) // 4)][: len(loaded)]
    blocks = (len(loaded) - 2) // 2
    assert latency.FEWEST_BLOCKS <= blocks <= latency.BLOCKS
    assert found.rounds == (len(clock.calls) - 4 - 2 * blocks) // 2  # without one call at each load, and two to try


def test_the_two_take_turns_in_going_first(clock):
    measure(clock.system("c", 0.01), clock.system("r", 0.01), seconds=1.2)
    block = clock.calls[4:][2:12]  # after the loads, the trial and the first block's loads
    assert [tuple(block[i : i + 2]) for i in range(0, 10, 2)] == [("r", "c"), ("c", "r")] * 2 + [("r", "c")]


def test_slow_systems_are_loaded_once_and_stop_after_six_rounds(clock):
    loads = []

    def load(name, seconds):
        loads.append(name)
        return clock.system(name, seconds)

    found = latency.measure(lambda: load("c", 3.0), lambda: load("r", 1.0), BATCH, seconds=0.5)
    assert (found.rounds, loads) == (6, ["r", "c"])
    assert found.ratio == pytest.approx(3)
    assert latency.measure(lambda: load("c", 3.0), lambda: load("r", 1.0), BATCH, seconds=36.0).rounds == 7
    assert latency.measure(lambda: load("c", 3.0), lambda: load("r", 1.0), BATCH, seconds=47.0).rounds == 10


def test_the_first_call_after_a_load_is_not_timed(clock):
    """It takes 50 ms more."""

    def load(name, seconds):
        first = [True]

        def duration(before):
            return seconds + (0.05 if first and first.pop() else 0)

        return clock.system(name, duration)

    found = latency.measure(lambda: load("c", 0.004), lambda: load("r", 0.002), BATCH, seconds=2)
    assert found.ratio_high == pytest.approx(2)
    assert found.p95_ms == pytest.approx(4)


def test_slow_spells_and_drift_cancel_in_the_ratio(clock):
    """A machine ten times slower now and then for a tenth of a second, and slower by the call."""

    def slowness(before):
        return (10 if before % 100 > 80 else 1) * (1 + 0.0005 * before)

    found = measure(
        clock.system("c", lambda before: 0.006 * slowness(before)),
        clock.system("r", lambda before: 0.002 * slowness(before)), seconds=3,
    )  # fmt: skip
    assert found.ratio == pytest.approx(3, rel=0.02)
    assert found.ratio_low <= found.ratio <= found.ratio_high
    assert found.p95_ms > 5 * found.p50_ms


def test_a_disturbed_call_here_and_there_is_nothing(clock):
    """Of the candidate every fifth call takes ten times as long, in every block."""
    slow = clock.system("c", lambda before: 0.02 if before % 10 in (0, 1) else 0.002)
    found = measure(slow, clock.system("r", 0.002), seconds=2)
    assert (found.ratio, found.ratio_low, found.ratio_high) == (pytest.approx(1),) * 3
    assert found.p95_ms == pytest.approx(20)


def test_a_block_that_was_disturbed_throughout_is_nothing(clock):
    loads = []

    def load():
        loads.append(1)
        return clock.system("c", 0.02 if len(loads) == 4 else 0.002)

    found = latency.measure(load, lambda: clock.system("r", 0.002), BATCH, seconds=1)
    assert len(loads) >= 11
    assert (found.ratio, found.ratio_high) == (pytest.approx(1), pytest.approx(1))


def test_the_reference_against_itself_is_one(clock):
    system = clock.system("r", 0.003)
    found = measure(system, clock.system("r", 0.003))
    assert found.ratio == found.ratio_low == found.ratio_high == pytest.approx(1)
    assert measure(system, system).ratio == pytest.approx(1)


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 8, 9, 12, 17, 30])
def test_the_interval_of_a_median_covers_it_as_often_as_it_says(count):
    """The chance that the median lies outside is that of too few, or too many, values below it."""
    low, high = latency.median_interval(list(range(count)))
    below, above = low, count - 1 - high
    assert below == above
    outside = 2 * binom.cdf(below, count, 0.5)
    assert outside <= 0.05 or count < 6
    assert 2 * binom.cdf(below + 1, count, 0.5) > 0.05  # and one value more on each side would be too many


def test_the_interval_does_not_depend_on_the_order():
    values = list(np.random.default_rng(0).normal(size=12))
    assert latency.median_interval(values) == latency.median_interval(sorted(values)[::-1])


@pytest.mark.parametrize(
    ("interval", "noise", "word"),
    [
        ((1.10, 1.30), (0.99, 1.02), "slower"),
        ((0.70, 0.90), (0.99, 1.02), "faster"),
        ((0.90, 1.30), (1.00, 1.00), "unclear"),  # the interval holds 1
        ((1.10, 1.30), (0.98, 1.15), "unclear"),  # the machine does as much to equals
        ((1.10, 1.30), (0.80, 1.02), "unclear"),  # in either direction
        ((0.80, 0.90), (1.00, 1.15), "unclear"),
        ((1.00, 1.00), (1.00, 1.00), "unclear"),
    ],
)
def test_a_difference_within_the_noise_is_unclear(interval, noise, word):
    assert latency.verdict(*interval, noise) == word
    low, high = interval
    opposite = {"slower": "faster", "faster": "slower"}.get(word, word)
    assert latency.verdict(1 / high, 1 / low, noise) == opposite
