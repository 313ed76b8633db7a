"""Where no more can be written a run ends with the place, leaves nothing half-done, and is continued by the next."""

import resource
from contextlib import contextmanager

import pandas as pd
import pytest

from harness.report.document import write_report
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.store import Store
from harness.suite.suite import read_suite
from tests.run.test_interrupted import SUITE

pytestmark = pytest.mark.usefixtures("in_this_process")
TIMED = ["build_seconds", "members_train_seconds"]


@contextmanager
def largest_file(size):
    """Files of this process may not be larger, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def run(folder):
    (folder / "suite.yaml").write_text(SUITE)
    return runner.run(make_plan(read_suite(folder / "suite.yaml"), Options(out=folder / "out", workers=1)), Tracker())


def numbers(folder):
    return read_run(folder).variants.drop(columns=TIMED)


def left(folder):
    return [path for path in folder.rglob(".*") if path.name != ".store"]


def test_it_ends_wherever_the_disk_is_full_and_ends_in_the_same_numbers(tmp_path):
    """One limit after the other on one store, each of which the run gets further by."""
    for name in ("whole", "small"):
        (tmp_path / name).mkdir()
    whole = run(tmp_path / "whole")
    for size in (300, 3_000, 8_000, 17_000):
        with pytest.raises(OSError, match="File too large") as full, largest_file(size):
            run(tmp_path / "small")
        assert str(tmp_path / "small/out") in str(full.value.filename)
        assert left(tmp_path / "small") == []
        assert list((tmp_path / "small/out").glob("stopped/*")) == []
        assert Store(tmp_path / "small/out/.store").damaged() == {}
    pd.testing.assert_frame_equal(numbers(run(tmp_path / "small")), numbers(whole), check_exact=True)


def test_a_report_is_there_whole_or_not_at_all(tmp_path):
    folder = run(tmp_path)
    with pytest.raises(OSError, match="File too large") as full, largest_file(20_000):
        write_report(folder)
    assert str(folder) in full.value.filename
    assert left(tmp_path) == []
    assert not (folder / "report.html").exists()
    before = write_report(folder).read_bytes()
    with pytest.raises(OSError, match="File too large"), largest_file(len(before) - 1):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == before
