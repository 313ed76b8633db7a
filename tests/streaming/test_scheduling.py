"""Jobs in phases on several threads: in order within a job, at once between jobs, and all stopped by one error."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.streaming.scheduling import Job, Threads


@settings(deadline=None)
@given(st.integers(1, 4), st.lists(st.lists(st.integers(0, 4), max_size=4), max_size=6))
def test_each_phase_is_given_all_results_of_the_one_before_in_order(threads: int, jobs: list[list[int]]) -> None:
    seen: dict[int, list[list[tuple[int, int]]]] = {}

    def phases(name: int, counts: list[int]):
        seen[name] = []
        for phase, count in enumerate(counts):
            results = yield [lambda _, at=(phase, place): at for place in range(count)]
            seen[name].append(results)

    Threads(threads, 0).run(Job(phases(name, counts)) for name, counts in enumerate(jobs))
    for name, counts in enumerate(jobs):
        assert seen[name] == [[(phase, place) for place in range(count)] for phase, count in enumerate(counts)]


def test_a_job_begins_where_the_one_before_leaves_a_thread_idle() -> None:
    """Two tasks of two jobs that wait for each other: in turn they would wait for ever."""
    barrier = threading.Barrier(2, timeout=10)

    def phases():
        yield [lambda _: barrier.wait()]

    Threads(2, 0).run(Job(phases()) for _ in range(2))
    assert not barrier.broken


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.lists(st.integers(0, 10), max_size=8))
def test_jobs_hold_no_more_memory_than_is_allowed_or_one_needs(threads: int, sizes: list[int]) -> None:
    held: dict[int, int] = {}
    most: list[int] = []

    def phases(name: int, size: int):
        held[name] = size
        most.append(sum(held.values()))
        yield [lambda _: time.sleep(0.001)]
        del held[name]

    Threads(threads, 8).run(Job(phases(name, size), size) for name, size in enumerate(sizes))
    assert max(most, default=0) <= max(8, *sizes, 0)


@pytest.mark.parametrize("where", ["task", "phase", "beginning", "jobs"])
def test_the_first_error_stops_all_jobs_and_closes_them(where: str) -> None:
    closed: list[int] = []
    begun: list[int] = []

    def fail(_: object = None) -> None:
        raise ZeroDivisionError(where)

    def phases(name: int):
        begun.append(name)
        try:
            if name == 5 and where == "beginning":
                fail()
            yield [fail if name == 5 and where == "task" else lambda _: time.sleep(0.001)]
            if name == 5 and where == "phase":
                fail()
            yield [lambda _: time.sleep(0.001)]
        finally:
            closed.append(name)

    def jobs():
        for name in range(1000):
            if name == 5 and where == "jobs":
                fail()
            yield Job(phases(name))

    with pytest.raises(ZeroDivisionError, match=where):
        Threads(3, 0).run(jobs())
    assert sorted(closed) == sorted(begun)
    assert len(begun) < 1000
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("merging")]
