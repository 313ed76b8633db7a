"""Laws of the order that jobs are started in, against a search of all chains."""

from hypothesis import given
from hypothesis import strategies as st

from harness.engines.engine import Job
from harness.engines.order import longest_paths


@st.composite
def graphs(draw):
    """Jobs each of which may wait for any that stands after it."""
    jobs = []
    for i in range(draw(st.integers(1, 7))):
        before = [job.name for job in jobs]
        needs = draw(st.lists(st.sampled_from(before), unique=True)) if before else []
        after = draw(st.lists(st.sampled_from([*before, "made earlier"]), unique=True))
        jobs.append(Job(str(i), print, {}, tuple(needs), tuple(after), cost=draw(st.integers(0, 9))))
    return draw(st.permutations(jobs))


def chains(job, jobs):
    """Every chain of jobs of which each waits for the one before, from a job on."""
    yield [job]
    for later in jobs:
        if job.name in (*later.needs, *later.after):
            yield from ([job, *chain] for chain in chains(later, jobs))


@given(graphs())
def test_urgency_is_the_expected_time_of_the_longest_chain_that_waits(jobs):
    expected = {job.name: max(sum(each.cost for each in chain) for chain in chains(job, jobs)) for job in jobs}
    assert longest_paths(jobs) == expected
