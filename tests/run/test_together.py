"""Several suites in one command: one list of jobs, results of each as if it had run by itself."""

import json
import shutil
from itertools import pairwise

import pandas as pd
import pytest

from harness.engines import local
from harness.errors import Interrupted
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.suite.suite import read_suite
from tests.inline import Inline

POOL = "{architecture: mlp, start: shared_base, base_epochs: 1, members: 2, epochs: 1, options: {hidden: 8}}"
FIRST = f"""
suite: first
task: digits
pool: {{train: {POOL}}}
methods: [best_single, linear, uniform_soup]
cost: {{latency: false}}
"""
SECOND = f"""
suite: second
task: digits
pool: {{train: {{architecture: small_cnn, start: independent, members: 2, epochs: 1}}}}
pools:
  again: {{train: {POOL}}}
methods: [best_single, log_linear, linear: {{pool: again}}]
cost: {{latency: false}}
"""
TIMED = ["build_seconds", "members_train_seconds"]


@pytest.fixture(scope="module", autouse=True)
def _inline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "_Pools", Inline)
        yield


def plans(folder, *texts, out="results"):
    found = []
    for text in texts:
        path = folder / f"{text.split()[1]}.yaml"
        path.write_text(text)
        suite = read_suite(path)
        found.append(make_plan(suite, Options(out=folder / out, workers=2)))
    return found


def log_of(run):
    return [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]


def started(run):
    return [event["job"] for event in log_of(run) if event["event"] == "start"]


class Recorder(Tracker):
    def __init__(self):
        super().__init__()
        self.begun, self.started_jobs, self.ended = [], [], 0

    def begin(self, title, todo, reused):
        super().begin(title, todo, reused)
        self.begun.append((title, len(todo), reused))

    def event(self, what, job):
        super().event(what, job)
        if what == "start":
            self.started_jobs.append(job)

    def end(self):
        self.ended += 1


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The runs of both, and what followed them."""
    folder, recorder = tmp_path_factory.mktemp("together"), Recorder()
    both = plans(folder, FIRST, SECOND)
    return folder, recorder, both, [read_run(folder) for folder in runner.run_together(both, recorder)]


def test_each_suite_has_the_results_that_it_has_by_itself(together):
    folder, _, _, runs = together
    for text, found in zip((FIRST, SECOND), runs, strict=True):
        [plan] = plans(folder, text, out="alone")
        alone = read_run(runner.run(plan, Tracker()))
        memory = [column for column in found.variants if "memory" in column]
        tables_ = [run.variants.drop(columns=[*TIMED, *memory]) for run in (found, alone)]
        pd.testing.assert_frame_equal(*tables_)
        assert set(found.record) == set(alone.record)
        assert (alone.record["beside"], found.record["status"]) == ([], "complete")
    assert [run.record["beside"] for run in runs] == [["second"], ["first"]]
    assert len({run.record["wall_seconds"] for run in runs}) == 1


def test_what_two_suites_need_is_made_once_and_is_in_both_logs(together):
    """The trainings of one pool, and all that is known of an ensemble of it, the memory that it takes too."""
    _, recorder, both, runs = together
    names = [job.name for job in recorder.started_jobs]
    assert len(set(names)) == len(names)
    assert sum(name.endswith("measure memory once") for name in names) == 1
    assert [name for name in names if "train again/" in name] == []
    first, second = (set(started(run)) for run in runs)
    assert {f"seed 0: train main/{member}" for member in ("base", "m0", "m1")} <= first
    assert {f"seed 0: train again/{member}" for member in ("base", "m0", "m1")} <= second
    assert len(first) + len(second) > len(names)
    [(title, todo, reused)] = recorder.begun
    assert title == "first: 3 variants, 1 seeds; second: 4 variants, 1 seeds"  # with the reference of its other pool
    assert (todo, todo + reused) == (len(names), sum(len(plan.jobs) for plan in both))
    assert recorder.ended == 1


def test_measurements_of_all_suites_come_after_everything_else(together):
    _, recorder, _, _ = together
    kinds = [job.place for job in recorder.started_jobs]
    assert kinds.count("alone") == 6  # both suites' variants, those of the shared pool once, and a process itself
    assert [pair for pair in pairwise(kinds) if pair == ("alone", "shared")] == []


def test_the_second_time_nothing_runs(together):
    folder, _, _, runs = together
    recorder = Recorder()
    again = [read_run(f) for f in runner.run_together(plans(folder, FIRST, SECOND), recorder)]
    assert recorder.started_jobs == []
    for found, before in zip(again, runs, strict=True):
        assert (found.record["summary"]["jobs_run"], log_of(found)) == (0, [])
        pd.testing.assert_frame_equal(found.variants, before.variants)


@pytest.fixture
def begun(together, tmp_path):
    """A folder to run both in, where all that they need was made before."""
    shutil.copytree(together[0] / "results/.store", tmp_path / "results/.store", symlinks=True)
    return tmp_path


def test_a_variant_that_breaks_is_told_of_in_its_own_suite_and_in_the_names_of_that(begun):
    broken = FIRST.replace("uniform_soup]", "uniform_soup, task_arithmetic: {scale: 1e38}]")
    first, second = (read_run(f) for f in runner.run_together(plans(begun, broken, SECOND), Tracker()))
    assert (first.record["status"], second.record["status"]) == ("incomplete", "complete")
    failed = first.variants.set_index(["variant", "seed"]).loc[("task_arithmetic/scale=1e+38", "all")]
    assert failed["status"] == "failed"
    assert "first: " not in failed["reason"]
    assert [event for event in log_of(second) if event["event"] not in ("start", "done")] == []


def test_results_that_cannot_be_written_do_not_keep_the_others_from_theirs(begun, monkeypatch):
    def write(folder, plan, *rest, write=runner.write_results, **more):
        if plan.suite.file.suite == "first":
            raise RuntimeError("the disk is odd")
        write(folder, plan, *rest, **more)

    monkeypatch.setattr(runner, "write_results", write)
    written = []
    with pytest.raises(RuntimeError, match="odd"):
        written.extend(runner.run_together(plans(begun, FIRST, SECOND), Tracker()))
    assert [path.name for path in (begun / "results").iterdir() if any(path.glob("*/run.json"))] == ["second"]
    assert list((begun / "results/first").iterdir()) == []


def test_an_interrupted_command_leaves_its_artefacts_and_no_unfinished_run(tmp_path):
    class Interrupt(Recorder):
        def event(self, what, job):
            super().event(what, job)
            if job.name == "second: seed 0: score best_single":
                raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        list(runner.run_together(plans(tmp_path, FIRST, SECOND), Interrupt()))
    left = [folder for name in ("first", "second") for folder in (tmp_path / "results" / name).iterdir()]
    assert {read_run(folder).record["status"] for folder in left} <= {"interrupted"}  # and latest is not among them
    recorder = Recorder()
    runs = [read_run(f) for f in runner.run_together(plans(tmp_path, FIRST, SECOND), recorder)]
    assert [run.record["status"] for run in runs] == ["complete", "complete"]
    assert [job.name for job in recorder.started_jobs if ": train " in job.name] == []


def test_what_is_left_unwritten_when_the_reader_stops_is_removed(begun):
    runs = runner.run_together(plans(begun, FIRST, SECOND), Tracker())
    first = next(runs)
    runs.close()
    assert (first / "run.json").is_file()
    assert list((begun / "results/second").iterdir()) == []
