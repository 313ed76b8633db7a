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


@pytest.mark.parametrize("count", [1, 3])
def test_the_reports_are_those_that_each_run_has_by_itself(runs, tmp_path, count):
    folders = runs(tmp_path, count)
    found = list(write_reports(iter(folders), count))
    assert found == [(folder, folder / "report.html") for folder in folders]
    for folder, report in found:
        together = report.read_bytes()
        assert write_report(folder).read_bytes() == together


def test_what_breaks_on_the_way_is_raised_after_the_reports_of_those_that_came(runs, tmp_path):
    def broken():
        yield from runs(tmp_path, 2)
        raise BadInput("no more")

    found = []
    with pytest.raises(BadInput, match="no more"):
        found.extend(write_reports(broken(), 3))
    assert [folder.name for folder, _ in found] == ["run 0", "run 1"]
    assert all(report.is_file() for _, report in found)


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
