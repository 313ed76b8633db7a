"""The gate takes one thing to judge; tests/gate/test_command.py has its outcomes."""

import pytest

from tests.cli.command import NO_DROP, call


@pytest.mark.parametrize(
    "arguments", [(), ("run", "--candidate", "dir"), ("--candidate", "dir"), ("run", "--suite", "s")]
)
def test_a_gate_judges_one_thing(capsys, tmp_path, arguments):
    (tmp_path / "policy.yaml").write_text(NO_DROP)
    code, out, err = call(capsys, "gate", *arguments, "--policy", tmp_path / "policy.yaml")
    assert (code, out, err.count("\n")) == (2, "", 1)
