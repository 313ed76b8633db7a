"""What becomes of jobs that take too long: what they wait for another run's work is not of their time."""

from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engines import order
from harness.engines.engine import Job, Outcome, too_long
from harness.engines.order import run_in_order


class Simulated:
    """Workers in a time of their own; every job waits for a while, then works for a while."""

    grace, wake = 0.0, 3600.0

    def __init__(self, spans):
        self.spans, self.now, self.running = spans, 0.0, {}

    def monotonic(self):
        return self.now

    def wait(self, futures, timeout, when):
        """As ``concurrent.futures.wait``."""
        soonest = min(self.ends(future) for future in futures)
        self.now = min(soonest, self.now + timeout)
        done = {future for future in futures if self.ends(future) <= self.now}
        for future in done:
            future.set_result(Outcome())
        return SimpleNamespace(done=done)

    def ends(self, future):
        begun, waits, works = self.running[future]
        return begun + waits + works

    def has_room(self, running):
        return running < 2

    def start(self, job):
        future = Future()
        self.running[future] = (self.now, *self.spans[job.name])
        return future

    def outcome(self, job, future):
        return future.result()

    def waited(self, future):
        begun, waits, _ = self.running[future]
        return min(self.now - begun, waits)

    def coming(self):
        return ()

    def end(self, overdue):
        return ()


def run(jobs, workers):
    outcomes = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "time", workers)
        patch.setattr(order, "wait", workers.wait)
        run_in_order(jobs, workers, outcomes, lambda what, job: None)
    return outcomes


SECONDS = st.integers(0, 30)


@given(st.lists(st.tuples(SECONDS, SECONDS, st.none() | st.integers(1, 20)), min_size=1, max_size=5))
def test_a_job_is_ended_exactly_where_it_works_longer_than_its_limit(given_jobs):
    jobs = [Job(str(number), print, {}, limit=limit) for number, (_, _, limit) in enumerate(given_jobs)]
    workers = Simulated({job.name: spans[:2] for job, spans in zip(jobs, given_jobs, strict=True)})
    outcomes = run(jobs, workers)
    for job, (_, works, limit) in zip(jobs, given_jobs, strict=True):
        late = limit is not None and works > limit
        assert outcomes[job.name].error == (too_long(job).error if late else None)
