"""Latency on systems that only wait, or that move a clock of our own: the ratio is what is known."""

import time
from types import SimpleNamespace

import pytest
import torch

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
        monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def system(self, name, seconds):
        """``seconds`` is a number, or a function of how many calls there were before."""

        def pass_time():
            before = len(self.calls) - 1
            self.now += seconds(before) if callable(seconds) else seconds

        return Fake(name, pass_time, self.calls)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_four_times_the_time_is_a_ratio_of_four(clock):
    found = latency.measure(
        clock.system("c", 0.008), clock.system("r", 0.002), BATCH, rounds=20, seconds=100
    )
    assert found.rounds == 20
    assert (found.p50_ms, found.p95_ms) == (pytest.approx(8), pytest.approx(8))
    assert (found.ratio, found.ratio_low, found.ratio_high) == (pytest.approx(4),) * 3


def test_sleeping_four_times_as_long_is_a_ratio_near_four():
    """On the real clock; what a loaded machine adds to both draws the ratio towards one."""
    calls = []
    candidate, reference = (Fake(n, lambda s=s: time.sleep(s), calls) for n, s in (("c", 0.02), ("r", 0.005)))
    found = latency.measure(candidate, reference, BATCH, rounds=12, seconds=60)
    assert 2.5 < found.ratio < 5.5
    assert found.ratio_low <= found.ratio <= found.ratio_high
    assert found.p50_ms <= found.p95_ms


def test_both_are_warmed_up_once_and_then_take_turns_in_going_first(clock):
    latency.measure(clock.system("c", 0.001), clock.system("r", 0.001), BATCH, rounds=6, seconds=100)
    warm, rounds = clock.calls[:2], clock.calls[2:]
    assert sorted(warm) == ["c", "r"]
    assert [tuple(rounds[i : i + 2]) for i in range(0, 12, 2)] == [("r", "c"), ("c", "r")] * 3


def test_the_first_call_is_not_timed(clock):
    found = latency.measure(
        clock.system("c", lambda before: 0.004 if before >= 2 else 50.0), clock.system("r", 0.002), BATCH,
        rounds=10, seconds=1000,
    )  # fmt: skip
    assert found.ratio_high == pytest.approx(2)
    assert found.p95_ms == pytest.approx(4)


def test_slow_spells_and_drift_cancel_in_the_ratio(clock):
    """A machine ten times slower for a third of the rounds, and slower by the call: absolute times say little."""

    def slowness(before):
        return (10 if 20 <= before < 40 else 1) * (1 + 0.01 * before)

    found = latency.measure(
        clock.system("c", lambda before: 0.006 * slowness(before)),
        clock.system("r", lambda before: 0.002 * slowness(before)), BATCH, rounds=30, seconds=1000,
    )  # fmt: skip
    assert found.ratio == pytest.approx(3, rel=0.02)
    assert found.ratio_low <= found.ratio <= found.ratio_high
    assert found.p95_ms > 5 * found.p50_ms


def test_the_ratio_is_the_median_so_one_outlier_is_nothing(clock):
    found = latency.measure(
        clock.system("c", lambda before: 9.0 if before == 7 else 0.002), clock.system("r", 0.002), BATCH,
        rounds=15, seconds=1000,
    )  # fmt: skip
    assert found.ratio == pytest.approx(1)


def test_the_interval_covers_the_spread_of_the_rounds_and_is_the_same_every_time(clock):
    def uneven(before):
        """As quick as the reference in five of the nine rounds, and half as quick in four."""
        return 0.002 if before % 8 in (3, 4) else 0.004

    def measured():
        clock.calls.clear()
        systems = (clock.system("c", uneven), clock.system("r", 0.002))
        return latency.measure(*systems, BATCH, rounds=9, seconds=1000)

    first = measured()
    assert (first.ratio_low, first.ratio, first.ratio_high) == pytest.approx((1, 1, 2))
    again = measured()
    assert (again.ratio_low, again.ratio, again.ratio_high) == pytest.approx((1, 1, 2))


def test_it_stops_when_the_time_is_used_up_but_not_before_five_rounds(clock):
    slow = {"candidate": clock.system("c", 3.0), "reference": clock.system("r", 1.0), "batch": BATCH}
    assert latency.measure(**slow, rounds=200, seconds=0.5).rounds == 5
    assert latency.measure(**slow, rounds=200, seconds=31.0).rounds == 8  # rounds of four seconds
    assert latency.measure(**slow, rounds=7, seconds=1000).rounds == 7


def test_the_reference_against_itself_is_one(clock):
    system = clock.system("r", 0.003)
    found = latency.measure(system, clock.system("r", 0.003), BATCH, rounds=5, seconds=1)
    assert found.ratio == found.ratio_low == found.ratio_high == pytest.approx(1)
    assert latency.measure(system, system, BATCH, rounds=5, seconds=1).ratio == pytest.approx(1)
