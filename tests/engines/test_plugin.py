"""An engine that an installed package brings: one file outside, an entry point, and the command runs jobs on it."""

import json
import os
import subprocess
import sys

import pytest

from tests.cli.command import SUITE

ENGINE = '''
"""Jobs one after the other in this process."""
from harness.engines.engine import Engine, Outcome, attempt, engine

@engine
class Serial(Engine):
    """One job after the other, in the process of the command."""

    name = "serial"

    def run(self, jobs, progress):
        outcomes = {}
        for job in sorted(jobs, key=lambda job: job.place == "alone"):  # the order that they come in is one of needs
            lost = next((need for need in job.needs if need in outcomes and outcomes[need].error), None)
            if lost:
                outcomes[job.name] = Outcome(error=f"{lost}: {outcomes[lost].error}")
            else:
                progress("start", job)
                outcomes[job.name] = attempt(job)
            progress("failed" if outcomes[job.name].error else "done", job)
        return outcomes
'''


@pytest.fixture
def stockpot(tmp_path):
    """Runs the command where a distribution with the engine is installed."""
    site = tmp_path / "site"
    facts = site / "serial_engine-1.0.dist-info"
    facts.mkdir(parents=True)
    (site / "serial_engine.py").write_text(ENGINE)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: serial-engine\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[stockpot.engines]\nserial = serial_engine\n")

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": f"{site}:{os.getcwd()}"}
        command = [sys.executable, "-m", "harness.cli", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    return run


def test_an_engine_from_a_plug_in_runs_suites_and_is_listed(stockpot, tmp_path):
    (tmp_path / "suite.yaml").write_text(SUITE)
    found = stockpot("run", tmp_path / "suite.yaml", "--out", tmp_path / "results", "--engine", "serial")
    assert found.returncode == 0, found.stderr
    record = json.loads((tmp_path / "results/tiny/latest/run.json").read_text())
    assert record["engine"] == {"name": "serial", "workers": 1, "threads_per_worker": 1}
    assert record["status"] == "complete"
    assert "\nserial\n    One job after the other" in "\n" + stockpot("ls", "engines").stdout


def test_an_unknown_engine_is_told_the_plug_ins_too(stockpot, tmp_path):
    (tmp_path / "suite.yaml").write_text(SUITE)
    found = stockpot("run", tmp_path / "suite.yaml", "--out", tmp_path / "results", "--engine", "serail")
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert "did you mean 'serial'?" in found.stderr
    assert "local" in found.stderr
