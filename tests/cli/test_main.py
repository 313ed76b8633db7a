"""How the command ends."""

import pytest

from harness.cli import main as command


def test_an_error_without_a_signal_stays_one(monkeypatch):
    def app(args):
        raise ValueError("Invalid bounding box")

    monkeypatch.setattr(command, "app", app)
    with pytest.raises(ValueError, match="bounding"):
        command.main(["ls", "suites"])
