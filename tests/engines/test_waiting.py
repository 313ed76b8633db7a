"""Laws of the order of jobs: the engine's, simulated, and as plain code has it."""

import time

from hypothesis import given
from hypothesis import strategies as st

from harness.engines.engine import Job, Outcome, give_up
from harness.engines.local import LocalEngine
from harness.engines.simulation import simulate
from harness.engines.waiting import Waiting, longest_paths
from tests.examples import examples

PLACES = st.sampled_from(["shared", "shared", "alone"])


@st.composite
def graphs(draw):
    """Jobs that need, or come after, some before them; those that measure are needed by none that does not."""
    jobs = []
    for k in range(draw(st.integers(0, 12))):
        place = draw(PLACES)
        known = [job.name for job in jobs if place == "alone" or job.place == "shared"]
        some = st.lists(st.sampled_from(known), max_size=4, unique=True) if known else st.just([])
        cost = draw(st.integers(1, 9))
        jobs.append(Job(f"j{k}", nothing, {}, tuple(draw(some)), tuple(draw(some)), place, float(cost)))
    return draw(st.permutations(jobs))


def nothing():
    pass


def in_rounds(jobs, slots):
    """Start times by looking through all jobs at every second."""
    ends, starts, now = {}, [], 0
    urgency = {}

    def chain(job):
        return job.cost + max((chain(each) for each in jobs if job.name in (*each.needs, *each.after)), default=0)

    for place, at_once in slots.items():
        left = [job for job in jobs if job.place == place]
        urgency = {job.name: max([chain_in(job, left)]) for job in left}
        left.sort(key=lambda job: -urgency[job.name])
        while left or any(end > now for end in ends.values()):
            for job in list(left):
                free = at_once - sum(end > now for end in ends.values())
                if free and all(ends.get(name, now + 1) <= now for name in (*job.needs, *job.after)):
                    left.remove(job)
                    starts.append((float(now), job.name))
                    ends[job.name] = now + job.cost
            now += 1
    return starts, float(max(ends.values(), default=0)), max((chain(job) for job in jobs), default=0.0)


def chain_in(job, jobs):
    """The longest chain from a job on among these, one by one."""
    return job.cost + max((chain_in(each, jobs) for each in jobs if job.name in (*each.needs, *each.after)), default=0)


@given(graphs(), st.integers(1, 4))
@examples(100)
def test_the_simulation_starts_jobs_as_plain_code_does_and_its_length_has_the_bounds_of_list_scheduling(jobs, workers):
    slots = LocalEngine(workers).slots
    found = simulate(jobs, slots)
    starts, makespan, critical = in_rounds(jobs, slots)
    assert (list(found.starts), found.makespan, found.critical_path) == (starts, makespan, critical)
    work = sum(job.cost for job in jobs)
    assert max(critical, work / workers) <= makespan <= work
    assert 0 <= found.idle_share < 1


@given(graphs(), st.sets(st.integers(0, 11)), st.sets(st.integers(0, 11)))
def test_what_waits_is_what_looking_through_all_jobs_finds(jobs, failing, first):
    """Whichever jobs fail, and in whatever order those that were taken end."""
    outcomes, left, taken = {}, {job.name: job for job in jobs}, []
    waiting = Waiting(jobs, outcomes)
    urgency = longest_paths(jobs)

    def lost():
        return {name for name, job in left.items() if give_up(job, outcomes)}

    while left or taken:
        while expected := lost():
            for job, outcome in waiting.lost():
                assert job.name in expected | lost()
                outcomes[job.name] = outcome
                del left[job.name]
                waiting.ended(job.name)
        ready = [job for job in left.values() if all(name in outcomes for name in (*job.needs, *job.after))]
        job = waiting.take()
        assert (job is None) == (not ready)
        if job:
            assert urgency[job.name] == max(urgency[each.name] for each in ready)
            taken.append(left.pop(job.name))
        if taken and (job is None or int(job.name[1:]) in first):
            ended = taken.pop(0)
            outcomes[ended.name] = Outcome(error="it failed" if int(ended.name[1:]) in failing else None)
            waiting.ended(ended.name)
    assert len(waiting) == 0
    assert outcomes.keys() == {job.name for job in jobs}


def test_a_job_that_is_put_back_starts_before_all_others():
    waiting = Waiting([Job("long", nothing, {}, cost=9), Job("short", nothing, {}), Job("more", nothing, {})], {})
    taken = waiting.take(), waiting.take()
    waiting.put_back(taken[1])
    assert [taken[0].name, waiting.take().name, waiting.take().name] == ["long", "short", "more"]


def sleep(seconds):
    time.sleep(seconds)


def test_the_engine_starts_jobs_that_sleep_in_the_order_of_the_simulation():
    """Of the seconds that they took, and once both processes are there: a busy machine takes long to start one."""
    seconds = {"a": 0.1, "b": 0.25, "c": 0.45, "d": 0.2, "e": 0.15, "f": 0.1, "g": 0.3, "h": 0.05, "m": 0.05}
    needs = {"d": ("a",), "e": ("a", "b"), "f": ("d",), "g": ("c",), "h": ("e", "f"), "m": ("a",)}
    jobs = [Job(name, sleep, {"seconds": 0.3}) for name in ("first", "second")]
    jobs += [Job(name, sleep, {"seconds": of}, needs.get(name, ()), after=("first", "second"),
                 place="alone" if name == "m" else "shared", cost=of) for name, of in seconds.items()]  # fmt: skip
    engine = LocalEngine(2, ("harness.run.preload",))
    begun, ended = {}, {}
    outcomes = engine.run(jobs, lambda what, job: {"start": begun, "done": ended}[what].update({job.name: time.time()}))
    assert outcomes.keys() == ended.keys() == {"first", "second", *seconds}
    planned = simulate(jobs, engine.slots, {name: ended[name] - begun[name] for name in ended})
    assert list(begun) == [name for _, name in planned.starts]
