"""The jobs of several plans as one list: order, what is shared, names, and errors in each plan's own words."""

from types import SimpleNamespace

import pytest

from harness.engines.engine import Job, Outcome
from harness.engines.local import LocalEngine
from harness.keys import Key
from harness.run.plan import PlannedJob
from harness.run.schedule import make_schedule
from tests.inline import Inline


def key(name):
    return Key("test", name)


def planned(name, makes, needs=(), **more):
    keys = tuple(key(made) for made in makes)
    stage = SimpleNamespace(group="build", artefacts=lambda: keys)
    return PlannedJob(stage, Job(name, print, {}, tuple(needs), **more))


def plan_of(suite, *jobs, there=()):
    store = SimpleNamespace(has=lambda asked: asked in {key(name) for name in there})
    missing = [job for job in jobs if not all(store.has(made) for made in job.stage.artefacts())]
    file = SimpleNamespace(suite=suite)
    return SimpleNamespace(suite=SimpleNamespace(file=file), store=store, missing=lambda: missing)


def jobs_of(schedule):
    return {scheduled.job.name: scheduled.job for scheduled in schedule.todo}


def test_one_plan_keeps_its_names_and_its_order():
    plan = plan_of("a", planned("train", ["t"]), planned("build", ["b"], ["train", "read"], after=("old",)))
    schedule = make_schedule([plan])
    assert list(jobs_of(schedule)) == ["train", "build"]
    assert jobs_of(schedule)["build"].needs == ("train", "read")
    assert jobs_of(schedule)["build"].after == ("old",)
    assert schedule.names == ({"train": "train", "build": "build"},)


def test_names_of_several_suites_are_told_apart_and_needs_follow_them():
    plans = [plan_of(suite, planned("train", [f"t{i}"]), planned("build", [f"b{i}"], ["train"]))
             for i, suite in enumerate(["a", "b", "a"])]  # fmt: skip
    schedule = make_schedule(plans)
    assert list(jobs_of(schedule)) == [
        "a: train", "a: build", "b: train", "b: build", "a (2): train", "a (2): build",
    ]  # fmt: skip
    assert jobs_of(schedule)["b: build"].needs == ("b: train",)
    assert schedule.owners("a (2): build") == [(2, "build")]


def test_a_job_that_leaves_what_another_suite_lacks_is_run_once_and_both_wait_for_it():
    """Whatever each calls it, and also where it leaves more than the other lacks."""
    train = planned("train main/m0", ["weights", "predictions"])
    first = plan_of("a", train, planned("build", ["b"], ["train main/m0"]))
    second = plan_of("b", planned("train far/m0", ["weights"]), planned("build", ["c"], ["train far/m0"]))
    schedule = make_schedule([first, second])
    assert list(jobs_of(schedule)) == ["a: train main/m0", "a: build", "b: build"]
    assert jobs_of(schedule)["b: build"].needs == ("a: train main/m0",)
    assert schedule.owners("a: train main/m0") == [(0, "train main/m0"), (1, "train far/m0")]


def test_a_job_that_lacks_more_than_another_leaves_waits_for_it_and_runs_too():
    first = plan_of("a", planned("train", ["weights", "digits"]))
    second = plan_of("b", planned("train", ["weights", "letters"]))
    schedule = make_schedule([first, second])
    assert jobs_of(schedule)["b: train"].after == ("a: train",)


def test_only_what_is_missing_counts_as_shared():
    """The second lacks nothing that the first will make: the artefact of both is there."""
    first = plan_of("a", planned("train", ["weights", "digits"]), there=["weights"])
    second = plan_of("b", planned("train", ["weights", "letters"]), there=["weights"])
    schedule = make_schedule([first, second])
    assert jobs_of(schedule)["b: train"].after == ()


def test_jobs_of_one_plan_are_never_folded_into_one():
    schedule = make_schedule([plan_of("a", planned("one", ["x"]), planned("two", ["x"])), plan_of("b")])
    assert list(jobs_of(schedule)) == ["a: one", "a: two"]
    assert jobs_of(schedule)["a: two"].after == ()


def test_errors_are_told_in_the_names_of_each_plan():
    train, build = planned("train", ["t"]), planned("build", ["b"], ["train"])
    first = plan_of("a", train, build, planned("score", ["s"], ["build"]))
    second = plan_of("b", planned("train it", ["t"]), planned("score it", ["z"], ["train it"]))
    schedule = make_schedule([first, second])
    outcomes = {
        "a: train": Outcome(error="ValueError: a: train is a word of the message", trace="where"),
        "a: build": Outcome(error="a: train: ValueError: a: train is a word of the message"),
        "a: score": Outcome(error="a: build: a: train: ValueError: a: train is a word of the message"),
        "b: score it": Outcome(error="a: train: ValueError: a: train is a word of the message"),
    }
    fault = "ValueError: a: train is a word of the message"
    mine, other = schedule.outcomes(0, outcomes), schedule.outcomes(1, outcomes)
    assert {name: outcome.error for name, outcome in mine.items()} == {
        "train": fault,
        "build": f"train: {fault}",
        "score": f"build: train: {fault}",
    }
    assert [outcome.error for outcome in other.values()] == [fault, f"train it: {fault}"]
    assert mine["train"].trace == other["train it"].trace == "where"
    other["train it"].error = None
    assert outcomes["a: train"].error == fault  # each plan may change its own


@pytest.mark.parametrize("sizes", [(6, 6), (3, 9)])
def test_no_worker_is_idle_while_any_suite_has_a_job(sizes, monkeypatch):
    """Each suite is a chain, which occupies one of two workers: in turn, the other would be idle all the time."""
    monkeypatch.setattr("harness.engines.local._Pools", Inline)
    plans = []
    for suite, size in zip("ab", sizes, strict=True):
        chain = [planned(f"step {i}", [f"{suite}{i}"], [f"step {i - 1}"] if i else []) for i in range(size)]
        plans.append(plan_of(suite, *chain, planned("measure", [f"{suite} alone"], place="alone")))
    events = []
    jobs = list(jobs_of(make_schedule(plans)).values())
    LocalEngine(workers=2).run(jobs, lambda what, job: events.append((what, job)))
    both = min(sizes)
    assert [what for what, _ in events[: 4 * both]] == ["start", "start", "done", "done"] * both
    assert [job.place for _, job in events] == ["shared"] * 2 * sum(sizes) + ["alone"] * 4
