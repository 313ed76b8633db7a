"""The laws of engines: ours keep them, and an engine that breaks one is caught by it."""

import multiprocessing
import pickle
import threading
import traceback
from importlib.util import find_spec

import pytest
import torch

from harness.checks import BrokenLaw, check_engine, laws
from harness.engines.engine import Engine, Outcome
from harness.registry import ENGINES

LAWS = {law.__name__: law for law in laws("engine")}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("name", ENGINES.all())
def test_engine(name, law):
    if name == "ray" and find_spec("ray") is None:
        pytest.skip('needs "stockpot[ray]"')
    law(ENGINES.get(name))


class Right(Engine):
    """One job after another, each in a fork."""

    name = "right"

    def run(self, jobs, progress):
        outcomes, waiting = {}, list(jobs)
        while waiting:
            job = next(job for job in waiting if self.is_ready(job, {each.name for each in waiting}))
            waiting.remove(job)
            lost = next((need for need in job.needs if need in outcomes and outcomes[need].error), None)
            if lost is None:
                progress("start", job)
                outcomes[job.name] = self.execute(job)
            else:
                outcomes[job.name] = self.give_up(job, lost, outcomes)
            progress("failed" if outcomes[job.name].error else "done", job)
        return outcomes

    def is_ready(self, job, waiting):
        return not waiting & {*job.needs, *job.after}

    def give_up(self, job, lost, outcomes):
        return Outcome(error=f"{lost}: {outcomes[lost].error}")

    def execute(self, job):
        fork = multiprocessing.get_context("fork")
        here, there = fork.Pipe()
        child = fork.Process(target=lambda: there.send_bytes(pickle.dumps(self.call(job))))
        child.start()
        found = pickle.loads(here.recv_bytes())
        child.join()
        return found

    def call(self, job):
        torch.set_num_threads(self.threads_per_worker)
        try:
            value = job.function(**job.arguments)
            pickle.dumps(value)
            return Outcome(value)
        except BaseException as error:  # a job may raise SystemExit, too
            return Outcome(error=f"{type(error).__name__}: {error}", trace=traceback.format_exc())


class RunsTwice(Right):
    def execute(self, job):
        super().execute(job)
        return super().execute(job)


class LosesValues(Right):
    def execute(self, job):
        found = super().execute(job)
        return Outcome(None, found.error, found.trace)


class IgnoresNeeds(Right):
    def is_ready(self, job, waiting):
        return not waiting & {*job.after} and (job.name != "middle" or "last" not in waiting)


class IgnoresAfter(Right):
    def is_ready(self, job, waiting):
        return not waiting & {*job.needs}


class HidesWhoFailed(Right):
    def give_up(self, job, lost, outcomes):
        return Outcome(error="something failed")


class HidesTheTraceback(Right):
    def execute(self, job):
        found = super().execute(job)
        return Outcome(found.value, found.error)


class InThisProcess(Right):
    def execute(self, job):
        return self.call(job)


class KeepsLocks(InThisProcess):
    def call(self, job):
        try:
            return Outcome(job.function(**job.arguments))
        except BaseException as error:
            return Outcome(error=f"{type(error).__name__}: {error}", trace=traceback.format_exc())


class MeasuresBesideOthers(InThisProcess):
    def run(self, jobs, progress):
        self.other = next(job for job in jobs if job.name == "many-0")
        return super().run(jobs, progress)

    def execute(self, job):
        beside = threading.Thread(target=self.call, args=(self.other,))
        if job.place == "alone":
            beside.start()
        found = super().execute(job)
        if job.place == "alone":
            beside.join()
        return found


class ManyThreads(InThisProcess):
    def run(self, jobs, progress):
        self.threads_per_worker = 2
        found = super().run(jobs, progress)
        self.threads_per_worker = 1
        return found


class TellsNothingOfStarts(Right):
    def run(self, jobs, progress):
        return super().run(jobs, lambda what, job: None if what == "start" else progress(what, job))


WRONG = [
    (RunsTwice, "every_job_has_an_outcome_and_runs_once"),
    (LosesValues, "values_come_back"),
    (IgnoresNeeds, "jobs_run_after_what_they_need"),
    (IgnoresAfter, "jobs_come_after_others_whatever_became_of_them"),
    (HidesWhoFailed, "a_failure_is_passed_on_by_name"),
    (HidesTheTraceback, "exceptions_come_back_as_text"),
    (KeepsLocks, "a_value_that_cannot_be_sent_is_an_error"),
    (MeasuresBesideOthers, "what_measures_runs_alone"),
    (InThisProcess, "what_measures_has_a_fresh_process"),
    (ManyThreads, "jobs_have_the_threads_that_it_says"),
    (TellsNothingOfStarts, "progress_is_reported"),
]


@pytest.fixture(autouse=True)
def _threads():
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize(("engine", "law"), WRONG, ids=lambda given: getattr(given, "__name__", given))
def test_a_wrong_engine_is_caught(engine, law, monkeypatch):
    monkeypatch.setattr(ENGINES, "_known", {**ENGINES.all(), "right": engine})
    with pytest.raises(BrokenLaw, match="engine 'right'") as caught:
        LAWS[law](engine)
    assert caught.value.law == law
    assert type(caught.value.__cause__) is AssertionError
    with pytest.raises(BrokenLaw):
        check_engine("right")


def test_every_law_of_engines_catches_something():
    assert [law for _, law in WRONG] == list(LAWS)


def test_a_right_engine_passes():
    for law in LAWS.values():
        law(Right)
