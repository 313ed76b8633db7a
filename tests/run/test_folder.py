"""A run's folder is unfinished, and removed by the next run, or whole with its manifest: wherever its process ends."""

import itertools
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from harness import folders
from harness.results import manifest
from harness.results.evidence import read_tables
from harness.results.manifest import check_manifest
from harness.run import folder, runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.suite.suite import read_suite
from tests.interrupting import interrupted_everywhere

SUITE = """
suite: steps
task: digits
pool:
  train: {architecture: mlp, start: shared_base, base_epochs: 1, members: 2, epochs: 1, options: {hidden: 8}}
methods: [linear]
reference: linear
correlate: {subsets: {sizes: [2], at_most: 3}}
cost: {latency: false, memory: false, energy: false}
"""
STEPS = [
    (os, "replace"),
    (Path, "rename"),
    (Path, "write_text"),
    (Path, "write_bytes"),
    (shutil, "copyfile"),
    (pd.DataFrame, "to_csv"),
    (pd.DataFrame, "to_parquet"),
    (manifest, "sync"),
]
"""What changes a run's folder."""


class Killed(BaseException):
    """Nothing that is to come after it is done, as where the process had been killed."""


def kill_at(patch, last):
    """End the writing before its first step where this is 0, after it where this is 1, and so on."""
    begun = []

    def counted(of, name):
        plain = getattr(of, name)

        def step(*arguments, **options):
            number = 2 * len(begun)
            begun.append(name)
            if number == last:
                raise Killed
            found = plain(*arguments, **options)
            if number + 1 == last:
                raise Killed
            return found

        patch.setattr(of, name, step)

    for each in STEPS:
        counted(*each)


@pytest.mark.usefixtures("in_this_process")
def test_a_run_that_ends_at_any_step_of_its_writing_is_whole_or_goes(tmp_path, monkeypatch):
    (tmp_path / "suite.yaml").write_text(SUITE)
    plan = make_plan(read_suite(tmp_path / "suite.yaml"), Options(out=tmp_path / "out", workers=1))
    given, plain = [], runner.write_results
    monkeypatch.setattr(runner, "write_results", lambda *arguments: plain(*(given.append(arguments) or arguments)))
    first = runner.run(plan, Tracker())
    [(_, *arguments)] = given
    unfinished, finished = [], [first.name]
    for last in itertools.count():
        place = folder._make(first.parent, "20260101-000000", [])  # whose lock nobody holds: its process is gone
        with monkeypatch.context() as patch:
            kill_at(patch, last)
            try:
                plain(place, *arguments)
            except Killed:
                ended = True
            else:
                ended = False
        if folder.is_finished(place):
            assert check_manifest(place)
            read_tables(place)
            finished.append(place.name)
        else:
            unfinished.append(place.name)
        if not ended:
            break
    assert len(unfinished) > 2 * len(manifest.ALWAYS)
    assert len(finished) >= 3  # the first, the last, and those that were ended after their last file had its name
    with folder.new_folder(first.parent, datetime.now(UTC)) as new:
        assert {path.name for path in first.parent.iterdir()} == {*finished, "latest", new.name}
        assert [path for name in finished for path in (first.parent / name).glob(".*")] == []


def test_a_signal_at_any_instruction_leaves_a_whole_run_or_none(tmp_path):
    def write():
        with folder.new_folder(tmp_path, datetime(2026, 1, 1, tzinfo=UTC)) as new:
            (new / "variants.csv").write_text("half")
            (new / "run.json").write_text("{}")
            folder.point_latest(new)

    whole, empty = [], 0
    for _ in interrupted_everywhere(write, folder, folders):
        found = {path.name: path for path in tmp_path.iterdir()}
        whole.append(folder.is_finished(tmp_path / "20260101-000000"))
        if found and not whole[-1]:  # made, and not yet known to be so: the next run removes it
            assert [list(path.iterdir()) for path in found.values()] == [[]]
            empty += 1
        assert set(found) <= {"20260101-000000", "latest"}
        assert list(tmp_path.glob("*/.*")) == []
        for path in found.values():
            path.unlink() if path.is_symlink() else shutil.rmtree(path)
    assert whole == sorted(whole)
    assert whole.count(True) > 50 < whole.count(False)
    assert empty < 10
    assert (tmp_path / "latest").readlink() == Path("20260101-000000")


def test_a_link_to_a_run_that_was_removed_with_its_parent_is_an_error_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        folder.point_latest(tmp_path / "gone" / "20260101-000000")
