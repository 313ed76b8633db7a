"""The command as a test calls it, and a suite and a policy that are small."""

import pytest

from harness.cli.main import main

SUITE = """suite: tiny
task: digits
pool:
  train: {architecture: mlp, start: independent, members: 2, epochs: 1}
methods:
  - best_single
  - linear
"""
NO_DROP = """version: 1
rules:
- {id: no-drop, match: {metric: accuracy}, vs: baseline, max_drop: {abs: 0.02}, test: paired}
"""


def call(capsys, *arguments):
    """Exit code, stdout and stderr of one command."""
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    output = capsys.readouterr()
    return stopped.value.code, output.out, output.err
