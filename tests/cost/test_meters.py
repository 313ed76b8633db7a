"""The interface of all meters: whatever goes wrong inside ends as a reading without a value."""

import subprocess
import sys
import time

import pytest

from harness.cost.meters import CpuTime, Meter, Poll, Reading, Unavailable, WallTime


class Broken(Meter):
    """Fails where it is told to."""

    unit = "bushels"

    def __init__(self, where, error):
        self.where, self.error, self.calls = where, error, []

    def _step(self, name):
        self.calls.append(name)
        if name == self.where:
            raise self.error

    def _begin(self):
        self._step("begin")

    def _end(self):
        self._step("end")
        return Reading(3.0, self.unit, "a barn", "counted")

    def _release(self):
        self._step("release")


@pytest.mark.parametrize("where", ["begin", "end"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [(Unavailable("no barn"), "no barn"), (OSError("fire"), "OSError: fire"), (KeyError("x"), "KeyError: 'x'")],
)
def test_no_meter_raises(where, error, reason):
    meter = Broken(where, error)
    meter.start()
    found = meter.stop()
    assert found == Reading(None, "bushels", "unavailable", reason)
    assert found.words == f"unavailable: {reason}"
    assert meter.calls == (["begin", "release"] if where == "begin" else ["begin", "end", "release"])


def test_a_reading_is_kept_though_the_release_fails():
    meter = Broken("release", OSError("stuck"))
    meter.start()
    assert meter.stop() == Reading(3.0, "bushels", "a barn", "counted")


def test_stop_without_start_is_no_reading():
    meter = Broken(None, None)
    assert meter.stop().value is None
    meter.start()
    assert meter.stop().value == 3
    again = meter.stop()
    assert (again.value, again.note) == (None, "it was not started again")
    meter.start()
    assert meter.stop().value == 3


def test_a_sleep_takes_time_and_no_processor():
    wall, cpu = WallTime(), CpuTime()
    for meter in (wall, cpu):
        meter.start()
    time.sleep(0.1)
    slept, used = wall.stop(), cpu.stop()
    assert slept.unit == used.unit == "s"
    assert slept.value >= 0.1
    assert used.value < 0.08


def test_processor_time_counts_children_that_have_ended():
    work = "import time\nwhile time.process_time() < 0.3: pass"
    cpu = CpuTime()
    cpu.start()
    subprocess.run([sys.executable, "-c", work], check=True)
    assert 0.28 < cpu.stop().value < 3


def test_a_poll_has_samples_from_start_to_stop():
    values = iter(range(10**6))
    poll = Poll(lambda: next(values), every=0.005)
    poll.start()
    time.sleep(0.1)
    samples = poll.stop()
    assert [value for _, value in samples] == list(range(len(samples)))
    times = [at for at, _ in samples]
    assert times == sorted(times)
    assert times[0] < 0.05
    assert times[-1] >= 0.1
    assert len(samples) > 3


def test_a_poll_that_fails_on_the_way_has_no_samples():
    def read():
        reads.append(1)
        if len(reads) == 3:
            raise Unavailable("lost")

    reads = []
    poll = Poll(read, every=0.001)
    poll.start()
    for _ in range(1000):
        time.sleep(0 if poll.fault else 0.005)
    with pytest.raises(Unavailable, match="lost"):
        poll.stop()
    assert len(reads) == 3
