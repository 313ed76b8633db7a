"""Reports written side by side: each is the one that it is alone, in order, and what breaks is told after the rest."""

import shutil

import pytest

from harness.engines import local
from harness.errors import BadInput
from harness.report.document import write_report
from harness.report.several import write_reports
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.suite.suite import read_suite
from tests.cli.command import SUITE
from tests.inline import Inline


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Copies of one finished run without a report."""
    folder = tmp_path_factory.mktemp("several")
    (folder / "suite.yaml").write_text(SUITE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "_Pools", Inline)
        run = runner.run(make_plan(read_suite(folder / "suite.yaml"), Options(folder / "results")), Tracker())
    return lambda place, count: [shutil.copytree(run, place / f"run {i}") for i in range(count)]


def test_one_report_is_that_of_its_run(runs, tmp_path):
    (folder,) = runs(tmp_path, 1)
    assert list(write_reports(iter([folder]), 1)) == [(folder, folder / "report.html")]
    together = (folder / "report.html").read_bytes()
    assert write_report(folder).read_bytes() == together


def test_reports_are_those_that_each_run_has_by_itself_and_what_breaks_on_the_way_is_raised_after_them(runs, tmp_path):
    folders = runs(tmp_path, 3)

    def broken():
        yield from folders
        raise BadInput("no more")

    found = []
    with pytest.raises(BadInput, match="no more"):
        found.extend(write_reports(broken(), 4))
    assert found == [(folder, folder / "report.html") for folder in folders]
    for folder, report in found[:2]:  # the first was written in another process, and one of these two here on two cores
        together = report.read_bytes()
        assert write_report(folder).read_bytes() == together


def test_a_fault_in_another_process_is_told_as_it_would_be_here(runs, tmp_path):
    first, second = runs(tmp_path, 2)
    (first / "run.json").unlink()
    others = []
    with pytest.raises(BadInput) as there:
        others.extend(write_reports(iter([first, second]), 2))
    assert [folder for folder, _ in others] == [second]
    with pytest.raises(BadInput) as here:
        write_report(first)
    assert str(there.value) == str(here.value)
