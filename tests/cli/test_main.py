"""How the command ends: also where code in C makes an error of its own of what is raised for a signal."""

import os
import signal
from contextlib import suppress

import pytest

from harness.cli import main as command


@pytest.fixture
def usual_signals():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background is begun without
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_a_library_takes_for_an_error_ends_the_command_in_a_line(
    number, code, monkeypatch, capsys, usual_signals
):
    def app(args):
        with suppress(KeyboardInterrupt, SystemExit):
            os.kill(os.getpid(), number)
            while True:
                pass
        raise ValueError("Invalid bounding box")

    monkeypatch.setattr(command, "app", app)
    with pytest.raises(SystemExit) as end:
        command.main(["ls", "suites"])
    assert end.value.code == code
    assert capsys.readouterr().err == f"stockpot: {command.STOPPED}\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_without_a_signal_stays_one(monkeypatch):
    def app(args):
        raise ValueError("Invalid bounding box")

    monkeypatch.setattr(command, "app", app)
    with pytest.raises(ValueError, match="bounding"):
        command.main(["ls", "suites"])
