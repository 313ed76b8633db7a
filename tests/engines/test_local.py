"""Laws of the engine: order, failure, and processes that die."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver, popen_forkserver
from pathlib import Path

import psutil
import pytest

from harness.claims import claim
from harness.engines import local, processes
from harness.engines.engine import Job, too_long
from harness.engines.local import LocalEngine
from harness.engines.order import DIED
from harness.engines.processes import deaf_to_ctrl_c

ROOT = Path(__file__).parents[2]
PRELOAD = ("harness.run.preload",)
"""As runs of images have it: one server of processes for all tests."""


def double(value):
    return 2 * value


def fail():
    raise KeyError("no such thing")


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


def fail_oddly():
    raise Unpicklable(1, 2)


def die():
    os._exit(1)


def note(path, word):
    with open(path, "a") as file:
        file.write(word + "\n")
    time.sleep(0.05)


def run(*jobs):
    events = []
    engine = LocalEngine(workers=2, preload=PRELOAD)
    outcomes = engine.run(jobs, lambda what, job: events.append((what, job.name)))
    return outcomes, events


def test_a_failure_is_an_outcome_and_its_dependants_say_whose_fault_it_is():
    outcomes, events = run(
        Job("fails", fail, {}),
        Job("oddly", fail_oddly, {}),
        Job("after", double, {"value": 1}, needs=("fails",)),
        Job("last", double, {"value": 1}, needs=("after",)),
        Job("fine", double, {"value": 4}),
    )
    assert outcomes["fine"].value == 8
    assert outcomes["fails"].error == "KeyError: 'no such thing'"
    assert "fail()" not in outcomes["fails"].error
    assert "in fail" in outcomes["fails"].trace
    assert outcomes["oddly"].error == "Unpicklable: 1 2"
    assert outcomes["last"].error == "after: fails: KeyError: 'no such thing'"
    assert ("start", "after") not in events
    assert ("failed", "last") in events


def test_a_process_that_dies_fails_its_own_job_and_no_other():
    outcomes, _ = run(Job("dies", die, {}), *(Job(f"fine {i}", double, {"value": i}) for i in range(6)))
    assert outcomes["dies"].error == DIED
    assert [outcomes[f"fine {i}"].value for i in range(6)] == [0, 2, 4, 6, 8, 10]
    assert multiprocessing.active_children() == []  # one left would keep the server, and the next run, waiting


def sleep_long():
    time.sleep(600)


def stop():
    os.kill(os.getpid(), signal.SIGSTOP)


def pause():
    time.sleep(1)


def wait_a_little(path):
    with open(path, "a") as file:
        file.write("began\n")
    time.sleep(1.5)
    return "done"


@pytest.mark.parametrize(("hang", "place"), [(stop, "shared"), (sleep_long, "alone")])
def test_a_job_that_exceeds_its_limit_fails_and_all_others_are_done(hang, place, tmp_path):
    """Also one whose process is stopped, and one that ran beside it and was ended with it."""
    path = tmp_path / "begun"
    warm = [f"first {i}" for i in range(2)] if place == "shared" else []  # processes take a second to begin
    outcomes, events = run(
        *(Job(name, pause, {}) for name in warm),
        Job("hangs", hang, {}, tuple(warm), place=place, limit=1.0, cost=9),
        Job("beside", wait_a_little, {"path": path}, tuple(warm), place=place, limit=30.0, cost=8),
        Job("waits", double, {"value": 1}, needs=("hangs",), place=place),
        *(Job(f"fine {i}", double, {"value": i}, place=place) for i in range(3)),
    )
    assert outcomes["hangs"].error == too_long(Job("", stop, {}, limit=1.0)).error
    assert "after 1 seconds" in outcomes["hangs"].error
    assert outcomes["waits"].error == f"hangs: {outcomes['hangs'].error}"
    assert outcomes["beside"].value == "done"
    assert len(path.read_text().split()) == (2 if place == "shared" else 1)
    assert [outcomes[f"fine {i}"].value for i in range(3)] == [0, 2, 4]
    assert [what for what, name in events if name == "beside"] == ["start", "done"]
    assert multiprocessing.active_children() == []


def start_others(path, then):
    """Start a process of the worker's group and one of its own, and end as it is told."""
    for apart in (False, True):
        began = subprocess.Popen([sys.executable, "-S", "-c", SLEEP], start_new_session=apart)
        with open(path, "a") as file:
            file.write(f"{began.pid}\n")
    if then == "sleep":
        time.sleep(600)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_server_of_processes_that_is_killed_is_begun_anew(tmp_path):
    run(Job("first", double, {"value": 1}))
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
    outcomes, _ = run(*(Job(f"fine {i}", double, {"value": i}) for i in range(4)))
    assert [outcomes[f"fine {i}"].value for i in range(4)] == [0, 2, 4, 6]


def test_a_pipe_that_breaks_while_processes_are_begun_is_no_end(monkeypatch):
    """That of the servers of processes and of semaphores, where one is killed; typer takes it for that of stdout."""
    begin, broken = local._Pools._open, [BrokenPipeError(errno.EPIPE, "Broken pipe"), EOFError()]

    def open_(pools, place):
        if broken:
            raise broken.pop()
        return begin(pools, place)

    monkeypatch.setattr(local._Pools, "_open", open_)
    assert run(Job("fine", double, {"value": 1}))[0]["fine"].value == 2


def end_the_server():
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)


def test_one_that_is_killed_while_jobs_run_fails_no_job_but_the_killer():
    outcomes, _ = run(Job("kills", end_the_server, {}), *(Job(f"fine {i}", double, {"value": i}) for i in range(4)))
    assert outcomes["kills"].error == DIED
    assert [outcomes[f"fine {i}"].value for i in range(4)] == [0, 2, 4, 6]


SLEEP = "import time; time.sleep(600)"


@pytest.mark.parametrize("then", ["sleep", "die"])
def test_what_a_job_has_started_ends_with_it(then, tmp_path):
    """All of it where the job is ended; of one that dies by itself, what has not left its group."""
    path = tmp_path / "started"
    job = Job("starts", start_others, {"path": path, "then": then})
    if then == "die":
        assert run(job)[0]["starts"].error == DIED
    else:
        pools = local._Pools(1, PRELOAD)
        pools.submit(job)
        while not path.exists() or path.read_text().count("\n") < 2:
            time.sleep(0.05)
        pools.kill()
    found = [int(line) for line in path.read_text().split()]
    started = [psutil.Process(process) for process in found if psutil.pid_exists(process)]
    _, alive = psutil.wait_procs(started if then == "sleep" else started[::2], timeout=20)
    for each in started:
        if each.is_running():
            each.kill()
    assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize("place", ["connect_to_new_process", "read_signed"])
def test_a_signal_while_a_process_starts_leaves_none_that_no_pool_knows(place, monkeypatch):
    """It would say in a traceback that what it was started for is gone."""
    run(Job("first", double, {"value": 1}))
    server = psutil.Process(forkserver._forkserver._forkserver_pid)
    plain, started = getattr(forkserver, place), []

    def interrupted(*arguments):
        plain(*arguments)
        while not started:
            started.extend(server.children())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(popen_forkserver.forkserver, place, interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(Job("second", double, {"value": 2}))
    assert psutil.wait_procs([server, *started], timeout=20)[1] == []
    assert run(Job("third", double, {"value": 3}))[0]["third"].value == 6


PRESSED = """
import signal
from harness.engines.local import LocalEngine
from harness.engines.engine import Job

if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: print("heard", flush=True))
    print(LocalEngine(1, ("slow_to_import",)).run([Job("one", abs, {"x": -1})], lambda *_: None)["one"].error)
"""
SLOW = """
import os, signal, time
os.killpg(os.getpgid(0), signal.SIGINT)  # as a terminal does
time.sleep(0.1)
"""


def test_ctrl_c_in_a_terminal_is_heard_by_the_run_alone_also_while_its_server_imports(tmp_path):
    (tmp_path / "slow_to_import.py").write_text(SLOW)
    (tmp_path / "pressed.py").write_text(PRESSED)
    found = subprocess.run([sys.executable, tmp_path / "pressed.py"], capture_output=True, text=True,
                           start_new_session=True, env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"})  # fmt: skip
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.splitlines() == ["heard", "TypeError: abs() takes no keyword arguments"]


def test_what_is_started_deaf_is_so_from_its_first_moment_and_its_parent_only_meanwhile():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with deaf_to_ctrl_c():
        process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0.1,))
        process.start()
    os.kill(process.pid, signal.SIGINT)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    process.join()
    assert process.exitcode == 0


def claim_it(file):
    with claim(file):
        return "mine"


def test_how_long_a_job_waits_for_a_claim_is_known_meanwhile_and_afterwards(tmp_path):
    file, pools = tmp_path / "claims" / "a", local._Pools(1, PRELOAD)
    with claim(file):
        waits = pools.submit(Job("waits", claim_it, {"file": file}))
        while not (before := pools.waited(waits)):
            time.sleep(0.01)
        while pools.waited(waits) <= before:
            time.sleep(0.01)
    assert waits.result().value == "mine"
    assert before < pools.waited(waits) == pools.waited(waits)
    after = pools.submit(Job("does not", claim_it, {"file": file}))
    assert after.result().value == "mine"
    assert pools.waited(after) == 0
    pools.close()


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
@pytest.mark.parametrize("which", [0, 1])
def test_processes_end_whatever_comes_over_one_that_has_nothing_more_to_do(which, number, monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 0.5)
    pools = local._Pools(2, PRELOAD)
    for each in [pools.submit(Job(name, note, {"path": os.devnull, "word": name})) for name in "ab"]:
        each.result()
    (pool,) = pools.pools.values()
    workers = list(pool._processes.values())
    os.kill(workers[which].pid, number)  # one of them holds the lock of the queue that tells both to end
    pools.close()
    assert not any(worker.is_alive() for worker in workers)


def fill():
    raise OSError(errno.ENOSPC, "No space left on device", "/store")


def test_a_full_disk_ends_the_run_and_no_job_goes_on(tmp_path):
    begin = time.monotonic()
    with pytest.raises(OSError, match="No space left") as full:
        run(Job("long", sleep_long, {}, cost=9), Job("full", fill, {}), Job("later", double, {"value": 1}, cost=0.1))
    assert full.value.filename == "/store"
    assert time.monotonic() - begin < 300
    assert multiprocessing.active_children() == []


def test_a_limit_that_is_no_number_a_lock_takes_is_none():
    assert run(Job("fine", double, {"value": 1}, limit=1e30))[0]["fine"].value == 2


def variable(name):
    return os.environ.get(name)


def test_workers_see_the_variables_of_their_own_run(monkeypatch):
    for value in ("one", "two"):
        monkeypatch.setenv("STOCKPOT_TEST", value)
        assert run(Job("look", variable, {"name": "STOCKPOT_TEST"}))[0]["look"].value == value
    monkeypatch.delenv("STOCKPOT_TEST")
    assert run(Job("look", variable, {"name": "STOCKPOT_TEST"}))[0]["look"].value is None


def note_process(path):
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")


def test_every_measurement_has_a_fresh_process(tmp_path):
    path = tmp_path / "processes"
    outcomes, _ = run(*(Job(f"alone {i}", note_process, {"path": path}, place="alone") for i in range(3)))
    assert all(outcome.error is None for outcome in outcomes.values())
    assert len(set(path.read_text().split())) == 3


def test_jobs_run_after_what_they_need_and_measurements_after_all_others(tmp_path):
    path = tmp_path / "order"
    words = {"c": ("b",), "b": ("a",), "a": ()}
    jobs = [Job(w, note, {"path": path, "word": w}, needs=n, cost=i) for i, (w, n) in enumerate(words.items())]
    alone = [Job(f"alone {i}", note, {"path": path, "word": f"alone {i}"}, place="alone", cost=9) for i in range(2)]
    outcomes, _ = run(*alone, *jobs)
    assert all(outcome.error is None for outcome in outcomes.values())
    order = path.read_text().splitlines()
    assert order[:3] == ["a", "b", "c"]
    assert sorted(order[3:]) == ["alone 0", "alone 1"]


def test_a_job_that_only_comes_after_others_runs_whatever_became_of_them(tmp_path):
    path = tmp_path / "order"
    outcomes, _ = run(
        Job("last", note, {"path": path, "word": "last"}, after=("fails", "lost", "noted", "made by an earlier run")),
        Job("lost", note, {"path": path, "word": "lost"}, needs=("fails",)),
        Job("noted", note, {"path": path, "word": "noted"}),
        Job("fails", fail, {}),
    )
    assert [name for name, outcome in outcomes.items() if outcome.error] == ["fails", "lost"]
    assert path.read_text().split() == ["noted", "last"]


def test_what_is_needed_and_was_not_asked_to_run_counts_as_there():
    outcomes, _ = run(Job("a", double, {"value": 1}, needs=("made by an earlier run",)))
    assert outcomes["a"].value == 2


def is_imported(name):
    return name in sys.modules


def test_each_run_imports_what_it_asks_for_although_another_came_before():
    """The fork server of the first run would go on without the module."""
    for preload in ((), ("wave",)):
        engine = LocalEngine(workers=1, preload=preload)
        outcome = engine.run([Job("job", is_imported, {"name": "wave"}, place="alone")], lambda *_: None)["job"]
        assert outcome.value is bool(preload)
