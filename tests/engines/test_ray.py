"""Laws of the Ray engine, on a cluster of two nodes that are both on this machine; see also tests/checks."""

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import pandas
import psutil
import pytest

from harness.engines import agreement
from harness.engines import ray as of_ray
from harness.engines.engine import Job, too_long
from harness.engines.order import DIED
from harness.engines.ray import RayEngine
from harness.errors import BadInput
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.suite.suite import read_suite
from tests.cli.command import SUITE, call
from tests.engines.ray_jobs import die, double, kill_once, meet, server, setting, stop, tell_and_stop
from tests.inline import in_this_process

has_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='needs "stockpot[ray]"')


def start_node(log, *arguments):
    """A node of a cluster, by the command that Ray has for it; stopped by SIGTERM."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    room = ("--num-cpus=1", "--num-gpus=1", "--object-store-memory=80000000")  # no job here computes on that GPU
    with open(log, "w") as file:
        begun = subprocess.Popen([*command, *room, *arguments], stdout=file, stderr=file)
    while "This command will now block" not in log.read_text():
        assert begun.poll() is None, log.read_text()
        time.sleep(0.1)
    return begun


@pytest.fixture(scope="module", name="nodes")
def _nodes():
    """Two nodes with one core each, and the folder of their logs; ``RAY_ADDRESS`` names them."""
    with pytest.MonkeyPatch.context() as patch, socket.socket() as free:
        for name, value in {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}.items():
            patch.setenv(name, value)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # a process that has read one keeps it
        patch.setenv("PYTHONPATH", os.getcwd())
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        folder = Path(tempfile.mkdtemp(prefix="nodes-", dir="/tmp"))  # short: sockets are below it
        begun = []
        try:
            lean = (f"--port={address.split(':')[1]}", "--include-dashboard=false", "--no-monitor")
            own = ("--head", "--node-ip-address=127.0.0.1", *lean, f"--temp-dir={folder}")
            begun.append(start_node(folder / "head.log", *own))
            begun.append(start_node(folder / "other.log", f"--address={address}", "--node-ip-address=127.0.0.1"))
            patch.setenv("RAY_ADDRESS", address)
            yield begun
        finally:
            for node in reversed(begun):
                node.terminate()
                node.wait()
            shutil.rmtree(folder, ignore_errors=True)


def run(*jobs):
    events = []
    engine = RayEngine(preload=("harness.engines.local",))
    outcomes = engine.run(jobs, lambda what, job: events.append((what, job.name)))
    return engine, outcomes, events


def processes():
    return [each for each in psutil.process_iter(["cmdline"]) if "harness.engines.local'" in str(each.info["cmdline"])]


@has_ray
def test_what_befalls_one_job_is_its_own_outcome_and_all_others_are_done(nodes, tmp_path):
    outcomes, events = run(
        Job("dies", die, {}, cost=9),
        Job("hangs", stop, {}, limit=1.0, cost=9),
        Job("hangs alone", stop, {}, limit=1.0, place="alone"),
        Job("waits", double, {"value": 1}, needs=("hangs",)),
        Job("dies once", kill_once, {"path": tmp_path / "one", "whole": False}, cost=5),
        Job("node dies once", kill_once, {"path": tmp_path / "two", "whole": True}, cost=4),
        *(Job(f"fine {i}", double, {"value": i}) for i in range(4)),
        *(Job(f"meets {name}", meet, {"folder": tmp_path, "name": name, "other": other}, limit=120.0)
          for name, other in ("ab", "ba")),
        *(Job(f"alone {i}", server, {}, place="alone") for i in range(2)),
        *(Job(f"setting {place}", setting, {}, place=place, device="cuda", folder=tmp_path / "store")
          for place in ("shared", "alone")),
        Job("without a folder", double, {"value": 5}, folder=Path("/proc/no/folder"), shared=f"file://{tmp_path}/place"),
    )[1:]
    assert outcomes["dies"].error == DIED
    assert outcomes["hangs"].error == outcomes["hangs alone"].error == too_long(Job("", stop, {}, limit=1.0)).error
    assert outcomes["waits"].error == f"hangs: {outcomes['hangs'].error}"
    assert [outcomes[name].value for name in ("dies once", "node dies once")] == ["done", "done"]
    assert [outcomes[f"fine {i}"].value for i in range(4)] == [0, 2, 4, 6]
    assert outcomes["without a folder"].value == 10  # where a place is shared, folders are each node's own
    assert list((tmp_path / "place").iterdir()) == []
    servers = {outcomes[f"meets {name}"].value for name in "ab"}
    assert len(servers) == 2  # both nodes work
    assert len({outcomes[f"alone {i}"].value for i in range(2)}) == 1  # one measures
    for place in ("shared", "alone"):
        assert outcomes[f"setting {place}"].value == (["token", "1", "0"], os.getcwd())  # one thread, and a GPU
    assert [what for what, name in events if name == "node dies once"] == ["start", "done"]
    psutil.wait_procs(processes(), timeout=30)
    assert processes() == []
    assert list((tmp_path / "store").iterdir()) == []


@has_ray
def test_ctrl_c_ends_all_processes_also_one_that_hears_nothing(nodes, tmp_path):
    def interrupt():
        while not path.exists():
            time.sleep(0.05)
        seen.extend(processes())
        os.kill(os.getpid(), signal.SIGINT)

    path, seen = tmp_path / "pid", []
    watching = threading.Thread(target=interrupt)
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background is begun without
    watching.start()
    with pytest.raises(KeyboardInterrupt):
        run(Job("stops", tell_and_stop, {"path": path}), Job("next", double, {"value": 1}, needs=("stops",)))
    watching.join()
    signal.signal(signal.SIGINT, usual)
    assert int(path.read_text()) in {each.pid for each in seen}
    assert psutil.wait_procs(seen, timeout=30)[1] == []


@has_ray
def test_a_node_with_other_code_is_refused(nodes, monkeypatch):
    monkeypatch.setattr(agreement, "code_digest", lambda: "another")
    with pytest.raises(BadInput, match=r"^node .*: its code of Stockpot, or of a plug-in, is not this "):
        run(Job("fine", double, {"value": 1}))


class Killer(Tracker):
    """Follows a run, and kills the first process that works on one of its jobs."""

    def __init__(self, nodes):
        super().__init__()
        self.nodes, self.killed, self.events, self.ended = nodes, [], [], False
        self.thread = threading.Thread(target=self.look)

    def begin(self, title, todo, reused):
        super().begin(title, todo, reused)
        self.thread.start()

    def event(self, what, job):
        super().event(what, job)
        self.events.append((what, job.name))

    def end(self):
        self.ended = True

    def look(self):
        while not (self.killed or self.ended):
            with suppress(psutil.Error):  # one that ends meanwhile
                if self.events and (workers := self.workers()):  # before that, nodes meet in such a process
                    workers[0].kill()
                    self.killed.append(workers[0].pid)
            time.sleep(0.01)

    def workers(self):
        """Those that are forked from the server of processes of a node: its command is theirs."""
        below = [each for node in self.nodes for each in psutil.Process(node.pid).children(recursive=True)]
        commands = {each.pid: " ".join(each.cmdline()) for each in below if each.is_running()}
        return [each for each in below if SERVER in commands.get(each.pid, "")
                and SERVER in commands.get(each.ppid(), "")]  # fmt: skip


SERVER = "'harness.run.preload'"
UNMEASURED = "cost: {latency: false, memory: false, energy: false}\n"


@has_ray
def test_two_nodes_of_which_one_loses_a_worker_give_the_results_of_this_machine(nodes, tmp_path):
    (tmp_path / "suite.yaml").write_text(SUITE + UNMEASURED)
    suite, tables = read_suite(tmp_path / "suite.yaml"), {}
    killer = Killer(nodes)
    with in_this_process():
        for engine, progress in (("ray", killer), ("local", Tracker())):
            plan = make_plan(suite, Options(out=tmp_path / engine, engine=engine, device="cpu"))
            tables[engine] = pandas.read_csv(runner.run(plan, progress) / "variants.csv")
    killer.thread.join()
    assert len(killer.killed) == 1
    assert {what for what, _ in killer.events} == {"start", "done"}
    same = [column for column in tables["local"] if "seconds" not in column]
    assert len(same) > 40
    assert list(tables["ray"]) == list(tables["local"])
    pandas.testing.assert_frame_equal(tables["ray"][same], tables["local"][same], check_exact=True)


def test_without_ray_the_command_says_what_to_install(capsys, monkeypatch, tmp_path):
    (tmp_path / "suite.yaml").write_text(SUITE)
    monkeypatch.setattr(of_ray, "find_spec", lambda name: None)
    code, out, said = call(capsys, "run", tmp_path / "suite.yaml", "--out", tmp_path / "results", "--engine", "ray")
    assert (code, out) == (2, "")
    assert said.splitlines() == ['stockpot: --engine ray: Ray is not installed; pip install "stockpot[ray]"']


def test_an_old_ray_is_refused(monkeypatch):
    monkeypatch.setattr(of_ray, "find_spec", lambda name: name)
    monkeypatch.setattr(of_ray.metadata, "version", lambda name: "2.9.3")
    with pytest.raises(BadInput, match=r"Ray 2\.9\.3 is too old; it takes 2\.54 or newer; pip install"):
        RayEngine()


@has_ray
@pytest.mark.parametrize(
    ("address", "device", "problem"),
    [
        ("ray://there:10001", "cpu", "joins a cluster from one of its nodes"),
        ("127.0.0.1:1", "cpu", "^RAY_ADDRESS=127.0.0.1:1: no Ray cluster: Connection refused; 'ray start"),
        ("local", "cuda:1", "^--device: Ray gives each worker a GPU of its own, so 'cuda:1' cannot be asked for"),
    ],
)
def test_what_no_cluster_can_do_is_said_before_anything_runs(monkeypatch, address, device, problem):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(BadInput, match=problem):
        run(Job("fine", double, {"value": 1}, device=device))
