"""Ctrl-C and SIGTERM leave a run of what is done, which nobody takes for whole; the same command then ends as ever."""

import os
import signal
import time

import pandas as pd
import pytest

from harness.cli.main import main
from harness.errors import Interrupted
from harness.report.document import write_report
from harness.results.comparable import run_faults
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.suite.suite import read_suite

pytestmark = pytest.mark.usefixtures("in_this_process")
SUITE = """
suite: stopped
task: digits
pool:
  train: {architecture: mlp, start: shared_base, base_epochs: 1, members: 2, epochs: 1, options: {hidden: 8}}
methods: [linear, uniform_soup]
reference: linear
cost: {latency: false, memory: false, energy: false}
"""


class Stopping(Tracker):
    """Ends the run as a signal does once a job of this name is done."""

    def __init__(self, end, after):
        super().__init__()
        self.stop, self.after = end, after

    def event(self, what, job):
        super().event(what, job)
        if what == "done" and self.after in job.name:
            raise self.stop


def run(folder, tracker):
    (folder / "suite.yaml").write_text(SUITE)
    plan = make_plan(read_suite(folder / "suite.yaml"), Options(out=folder / "out", workers=1))
    return runner.run(plan, tracker)


ENDS = [(KeyboardInterrupt(), 130), (SystemExit(128 + signal.SIGTERM), 143)]


@pytest.mark.parametrize(("end", "code"), ENDS, ids=["Ctrl-C", "SIGTERM"])
def test_what_is_done_is_a_run_that_is_marked_and_the_next_is_whole(tmp_path, end, code):
    with pytest.raises(Interrupted) as stopped:
        run(tmp_path, Stopping(end, "score linear"))
    assert stopped.value.code == code
    (folder,) = (tmp_path / "out/stopped").iterdir()  # no latest
    found = read_run(folder)
    assert found.record["status"] == "interrupted"
    assert any("interrupted" in fault for fault in run_faults(found))
    rows = found.variants.set_index(["variant", "seed"])
    assert rows.loc[("linear", "0"), "status"] == "ok"
    assert rows.loc[("uniform_soup", "0"), "status"] == "failed"
    assert "run the same command again" in rows.loc[("uniform_soup", "0"), "reason"]
    assert "interrupted with" in write_report(folder).with_name("report.md").read_text()
    whole = read_run(run(tmp_path, Tracker()))
    assert whole.record["status"] == "complete"
    assert run_faults(whole) == []
    assert (tmp_path / "out/stopped/latest").resolve() == whole.folder
    own = whole.variants.set_index(["variant", "seed"])
    scores = ["accuracy", "nll", "brier", "ece"]
    pd.testing.assert_series_equal(own.loc[("linear", "0"), scores], rows.loc[("linear", "0"), scores])


def test_of_a_run_without_any_score_nothing_stays_but_the_store(tmp_path):
    with pytest.raises(Interrupted):
        run(tmp_path, Stopping(KeyboardInterrupt(), "train main/m0"))
    assert list((tmp_path / "out/stopped").iterdir()) == []
    assert list((tmp_path / "out/.store").glob(".*")) == []


@pytest.mark.parametrize("shard", [(), ("--shard", "1/2")], ids=["whole", "shard"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_between_two_results_leaves_nothing_however_long_its_error_is_kept(
    tmp_path, monkeypatch, number, code, shard
):
    (tmp_path / "suite.yaml").write_text(SUITE)
    begin = time.monotonic()

    def signalled(*_):
        os.kill(os.getpid(), number)
        while time.monotonic() < begin + 60:
            pass

    monkeypatch.setattr("harness.report.several.write_report", signalled)
    monkeypatch.setattr("harness.results.shard.read_shard", signalled)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as end:  # which keeps all frames, as this block does
            main(["run", str(tmp_path / "suite.yaml"), "--out", str(tmp_path / "out"), "--workers", "1", *shard])
    finally:
        signal.signal(signal.SIGINT, before)
    assert end.value.code == code
    hidden = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob(".*")}
    assert hidden == {"out/.store"}
