"""A run that is killed leaves no process behind, and the next one removes what it left on the disk."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.suite.suite import read_suite
from tests.inline import in_this_process

SUITE = """
suite: killed
task: digits
pool:
  train: {architecture: mlp, start: independent, members: 2, epochs: EPOCHS, options: {hidden: 8}}
methods: [linear]
reference: linear
cost: {latency: false, memory: false, energy: false}
"""


def begin(folder):
    """A run whose workers train by now and would for a long time: its process, and all that it started."""
    (folder / "suite.yaml").write_text(SUITE.replace("EPOCHS", "100000"))
    command = ("run", folder / "suite.yaml", "--out", folder / "results", "--workers", "2")
    arguments = [sys.executable, "-m", "harness.cli", *map(str, command)]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while len(list((folder / "results/.store").glob(".writing-*"))) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    return process, psutil.Process(process.pid).children(recursive=True)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)])
def test_workers_end_with_the_run_and_nothing_of_it_stays(tmp_path, signum, code):
    process, children = begin(tmp_path)
    assert len(children) >= 3  # two workers, and the server that they are forked from
    process.send_signal(signum)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
    if signum == signal.SIGTERM:
        assert said.splitlines()[-1].startswith("stockpot: stopped; what is whole is kept")
        assert "Traceback" not in said
        assert list((tmp_path / "results/killed").iterdir()) == []
    (tmp_path / "suite.yaml").write_text(SUITE.replace("EPOCHS", "1"))
    with in_this_process():
        plan = make_plan(read_suite(tmp_path / "suite.yaml"), Options(out=tmp_path / "results", workers=1))
        found = read_run(runner.run(plan, Tracker()))
    assert found.record["status"] == "complete"
    assert sorted(path.name for path in (tmp_path / "results/killed").iterdir()) == [found.folder.name, "latest"]
    assert list((tmp_path / "results/.store").glob(".*")) == []
