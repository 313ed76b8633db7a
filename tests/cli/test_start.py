"""Ctrl-C while the command still imports ends it in a line, however early, and whoever would take it for an error."""

import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from harness.cli.start import STOPPED

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
MODULE, FUNCTION = PROJECT["scripts"]["stockpot"].split(":")
BEGIN = {
    "the script": f"from {MODULE} import {FUNCTION}; {FUNCTION}()",
    "the module": "runpy.run_module('harness.cli', run_name='__main__', alter_sys=True)",
}
PRESSED = """
import contextlib, os, runpy, signal, sys

class Pressed:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            with contextlib.suppress({taken}):
                os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.{hears})
sys.meta_path.insert(0, Pressed())
sys.argv = ["stockpot", "ls", "suites"]
"""


def end(begin, **how):
    given = {"taken": "", "hears": "default_int_handler", **how}
    code = PRESSED.format(**given) + BEGIN[begin]
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("begin", BEGIN)
@pytest.mark.parametrize("module", ["harness.cli.main", "typer", "harness.cli.sharding"])
def test_ctrl_c_in_an_import_ends_the_command_in_a_line(begin, module):
    found = end(begin, module=module)
    assert (found.returncode, found.stderr, found.stdout) == (130, f"stockpot: {STOPPED}\n", "")


def test_ctrl_c_ends_the_command_where_a_module_would_go_on_without_what_it_imports():
    found = end("the script", module="harness.errors", taken="BaseException")
    assert (found.returncode, found.stderr) == (130, f"stockpot: {STOPPED}\n")


def test_ctrl_c_in_what_a_command_imports_ends_it_in_the_same_line():
    found = end("the script", module="harness.suite.shipped")
    assert (found.returncode, found.stderr) == (128 + signal.SIGINT, f"stockpot: {STOPPED}\n")


def test_a_job_in_the_background_hears_none():
    found = end("the script", module="typer", hears="SIG_IGN")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout
