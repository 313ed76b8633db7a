"""Reports of the runs that are kept in the repository, which earlier versions made: every one can be written again."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from harness.report import document, write_report

KEPT = Path(__file__).parents[2] / "results" / "reference"
RUNS = sorted(path.parent.name for path in KEPT.glob("*/details.json"))


def test_there_are_such_runs():
    assert len(RUNS) >= 3


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", RUNS)
def test_an_earlier_run_has_a_report(tmp_path, name):
    folder = tmp_path / name
    shutil.copytree(KEPT / name, folder)
    page = write_report(folder).read_text()
    assert "All variants" in page
    assert "nothing installed here declares" not in page
    assert "## All variants" in (folder / "report.md").read_text()


def test_columns_of_a_plug_in_that_is_not_here_are_named_in_a_warning(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(KEPT / "domains", folder)
    table = pd.read_csv(folder / "variants.csv", dtype=str)
    table.assign(kappa="0.5", kappa_low="0.4").to_csv(folder / "variants.csv", index=False)
    monkeypatch.setattr(document, "figures", lambda evidence: ())  # the page says it
    for text in (write_report(folder).read_text(), (folder / "report.md").read_text()):
        (line,) = (line for line in text.splitlines() if "nothing installed here declares" in line)
        assert "kappa, kappa" in line.replace("\\", "")
        assert "accuracy" not in line
