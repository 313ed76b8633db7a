"""Reports of the runs that are kept in the repository, which earlier versions made: every one can be written again."""

import shutil
from pathlib import Path

import pytest

from harness.report import write_report

KEPT = Path(__file__).parents[2] / "results" / "reference"
RUNS = sorted(path.parent.name for path in KEPT.glob("*/details.json"))


def test_there_are_such_runs():
    assert len(RUNS) >= 3


@pytest.mark.parametrize("name", RUNS)
def test_an_earlier_run_has_a_report(tmp_path, name):
    folder = tmp_path / name
    shutil.copytree(KEPT / name, folder)
    assert "All variants" in write_report(folder).read_text()
    assert "## All variants" in (folder / "report.md").read_text()
