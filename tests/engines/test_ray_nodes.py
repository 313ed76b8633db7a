"""A host of a node's processes ends what works beyond its limit, as this machine does, and needs no Ray to show it."""

import asyncio
import time
from concurrent.futures import Future

from harness.engines.ray_nodes import Host


class Pools:
    """A process whose job waits for another run until it was asked ``looks`` times, and then ends or works on."""

    def __init__(self, looks, ends):
        self.left, self.ends, self.ended = looks, ends, []
        self.begun, self.sent = time.monotonic(), Future()

    def call(self, place, function):
        return self.sent

    def waited(self, future):
        assert future is self.sent
        self.left -= 1
        if self.left == 0 and self.ends:
            self.sent.set_result("there")
        return time.monotonic() - self.begun if self.left >= 0 else 0.0

    def end(self, place):
        self.ended.append(place)


def called(pools):
    return asyncio.run(Host._call(Host.__new__(Host), pools, "shared", 0.01, print))


def test_a_job_that_waits_for_another_run_is_not_late():
    pools = Pools(3, ends=True)
    assert called(pools) == ("done", "there")
    assert (pools.left, pools.ended) == (0, [])


def test_one_that_works_on_after_it_has_waited_is():
    pools = Pools(3, ends=False)
    assert called(pools) == ("late", None)
    assert (pools.left, pools.ended) == (-1, ["shared"])
