"""Two runs that share a store at the same time: each ends with the numbers that it has alone, and work is done once."""

import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from harness.keys import Key
from harness.results.run import read_run
from harness.run import runner
from harness.run.folder import MAKER, using
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.run.stages.stage import Stage
from harness.store import Store, write_json
from harness.suite.suite import read_suite

pytestmark = pytest.mark.usefixtures("in_this_process")

SUITE = """
suite: {name}
task: digits
pool:
  train: {{architecture: mlp, start: shared_base, base_epochs: 1, members: 3, epochs: 1, options: {{hidden: 8}}}}
methods: [best_single, {methods}]
cost: {{latency: false, memory: false, energy: false}}
"""
TIMED = ["build_seconds", "members_train_seconds"]


def numbers(run):
    return run.variants.drop(columns=TIMED), run.examples, run.comparisons


def test_two_runs_at_once_end_with_the_numbers_of_each_alone(tmp_path):
    """Real processes, with members and some variants in common."""
    suites = {"one": "linear, uniform_soup, majority_vote", "other": "uniform_soup, linear, log_linear"}
    commands = []
    for name, methods in suites.items():
        (path := tmp_path / f"{name}.yaml").write_text(SUITE.format(name=name, methods=methods))
        commands.append([sys.executable, "-m", "harness.cli", "run", str(path), "--out", str(tmp_path / "shared"),
                         "--workers", "1"])  # fmt: skip
    processes = [subprocess.Popen(each, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for each in commands]
    for name, process in zip(suites, processes, strict=True):
        printed, said = process.communicate(timeout=900)
        assert process.returncode == 0, said
        together = read_run(Path(printed.strip()))
        plan = make_plan(read_suite(tmp_path / f"{name}.yaml"), Options(out=tmp_path / "alone" / name, workers=1))
        for ours, theirs in zip(numbers(together), numbers(read_run(runner.run(plan, Tracker()))), strict=True):
            pd.testing.assert_frame_equal(ours, theirs)
    store = Store(tmp_path / "shared" / ".store")
    assert store.damaged() == {}
    assert [path.name for path in store.root.glob(".*")] == []
    assert list((tmp_path / "shared").glob(f"*/*/{MAKER}")) == []


@dataclass(frozen=True, eq=False)
class Slow(Stage):
    """Notes when it is run, and leaves one artefact."""

    notes: Path
    group = "slow"

    @property
    def label(self):
        return "slow"

    def artefacts(self):
        return (Key.of("slow", code="harness.errors"),)

    def run(self):
        with self.notes.open("a") as file:
            file.write("run\n")
        time.sleep(0.3)
        with self.setting.store.write(self.artefacts()[0]) as folder:
            write_json(folder / "value.json", 1)


class Where:
    """A setting, as far as the stage asks for it."""

    def __init__(self, folder):
        self.store, self.memory = Store(folder), None


def test_work_that_two_begin_at_once_is_done_once_and_the_other_takes_it(tmp_path):
    stage = Slow(Where(tmp_path / "store"), tmp_path / "notes")
    threads = [threading.Thread(target=stage.perform) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "notes").read_text() == "run\n"
    assert stage.is_done()


def test_where_the_first_breaks_the_other_does_it(tmp_path):
    class Breaks(Slow):
        def run(self):
            if not self.notes.exists():
                self.notes.write_text("broken\n")
                time.sleep(0.3)
                raise OSError("no room")
            super().run()

    stage = Breaks(Where(tmp_path / "store"), tmp_path / "notes")
    errors = []

    def perform():
        try:
            stage.perform()
        except OSError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=perform) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "notes").read_text() == "broken\nrun\n"
    assert errors == ["no room"]
    assert stage.is_done()


def test_the_reference_is_not_timed_again_while_another_run_may_need_its_times(tmp_path, monkeypatch):
    renewed = []
    monkeypatch.setattr(runner, "renew_noise", lambda plan: renewed.append(plan.suite.file.suite))
    (path := tmp_path / "suite.yaml").write_text(SUITE.format(name="timed", methods="linear"))
    plan = make_plan(read_suite(path), Options(out=tmp_path / "results", workers=1))
    with using(plan.store) as first:
        assert first
        runner.run(plan, Tracker())
        assert renewed == []
    folder = runner.run(plan, Tracker())
    assert renewed == ["timed"]
    assert json.loads((folder / "run.json").read_text())["summary"]["jobs_run"] == 0
