"""A signal ends the command in a line, also where Python would print and drop what is raised for it."""

import gc
import os
import signal
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path

import pytest

from harness.cli import main as command

ROOT = Path(__file__).parents[2]
ENDS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.fixture(autouse=True)
def usual_signals():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background is begun without
    yield
    signal.signal(signal.SIGINT, before)


def run(app, monkeypatch):
    monkeypatch.setattr(command, "app", lambda args: app())
    with pytest.raises(SystemExit) as end:
        command.main(["ls", "suites"])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return end.value.code


def wait():
    end = time.monotonic() + 20
    while time.monotonic() < end:
        pass
    raise AssertionError("no signal came")


@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_signal_that_a_library_takes_for_an_error_ends_the_command_in_a_line(number, code, monkeypatch, capsys):
    def app():
        with suppress(KeyboardInterrupt, SystemExit):
            os.kill(os.getpid(), number)
            wait()
        raise ValueError("Invalid bounding box")

    assert run(app, monkeypatch) == code
    assert capsys.readouterr().err == f"stockpot: {command.STOPPED}\n"


class Named:
    """Weak references can be had of it."""


class Destroyed:
    def __init__(self, act):
        self.act = act

    def __del__(self):
        self.act()


def in_a_destructor(act):
    Destroyed(act)


def in_the_callback_of_a_weak_reference(act):
    named = Named()
    reference = weakref.ref(named, lambda _: act())
    del named
    assert reference() is None


def in_a_callback_of_the_collector(act):
    def callback(phase, info):
        gc.callbacks.remove(callback)
        act()

    gc.callbacks.append(callback)
    gc.collect()


def while_it_is_undone(act):
    class Closed:
        def __del__(self):
            try:
                act()
            finally:
                raise OSError("closing failed")

    Closed()


DROPPED = [in_a_destructor, in_the_callback_of_a_weak_reference, in_a_callback_of_the_collector, while_it_is_undone]


@pytest.mark.parametrize("place", DROPPED)
@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_signal_whose_error_python_drops_comes_again(place, number, code, monkeypatch, capsys):
    def signalled():
        os.kill(os.getpid(), number)
        for _ in range(10):
            time.sleep(0.0001)

    def app():
        place(signalled)
        wait()

    assert run(app, monkeypatch) == code
    assert capsys.readouterr().err == f"stockpot: {command.STOPPED}\n"


@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_signal_in_a_text_that_is_executed_has_the_same_exit_code(number, code, tmp_path):
    """Dataclasses are made so; after KeyboardInterrupt there python -m would kill itself, whatever handles it."""
    (tmp_path / "program.py").write_text(f"""
import signal
from harness.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)
main.app = lambda args: exec("import os; os.kill(os.getpid(), {number.value})")
main.main([])
""")
    path = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    found = subprocess.run([sys.executable, "-m", "program"], capture_output=True, text=True, env=path)
    assert (found.returncode, found.stderr) == (code, f"stockpot: {command.STOPPED}\n")


def test_it_comes_no_more_where_all_was_done_meanwhile():
    code = """
import os, signal, sys, time
from harness.cli import main, signals

class Destroyed:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.001)

main.app = lambda args: Destroyed() and None
main.main([])
time.sleep(5 * signals.AGAIN)
print("done")
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (0, "done\n", "")


def test_another_error_of_a_destructor_is_told_as_ever(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    def app():
        Destroyed(lambda: 1 / 0)
        raise SystemExit(0)

    assert run(app, monkeypatch) == 0
    assert [each.exc_type for each in told] == [ZeroDivisionError]
    assert sys.unraisablehook == told.append
