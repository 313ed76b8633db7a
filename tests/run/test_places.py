"""What is in the way of a run's files is said in one line before any work, and nothing is made."""

import os

import pytest

from harness.errors import BadInput
from harness.run.places import check_places


def _a_file(at):
    at.parent.mkdir(parents=True, exist_ok=True)
    at.write_text("mine")


@pytest.mark.parametrize(
    ("make", "out"),
    [
        (lambda root: _a_file(root / "out"), "out"),
        (lambda root: _a_file(root / "out"), "out/below"),
        (lambda root: _a_file(root / "out" / ".store"), "out"),
        (lambda root: _a_file(root / "out" / "tiny"), "out"),
        (lambda root: _a_file(root / "out" / "tiny" / "latest"), "out"),
        (lambda root: (root / "out" / "tiny" / "latest").mkdir(parents=True), "out"),
        (lambda root: (root / "out").symlink_to(root / "nowhere"), "out"),
        (lambda root: None, os.fsdecode(b"out\xff")),
        (lambda root: None, "a" * 300),
    ],
    ids=["file", "below a file", "store", "suite", "latest", "latest folder", "dangling", "not utf-8", "long"],
)
def test_what_is_in_the_way_is_said(make, out, tmp_path):
    make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInput) as refused:
        check_places(tmp_path / out, "tiny")
    assert refused.value.place.startswith("--out")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_nobody_may_write_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as root, who may write anywhere
    with pytest.raises(BadInput, match="not writable"):
        check_places(tmp_path / "new", "tiny")


def test_a_new_folder_and_that_of_earlier_runs_are_fine(tmp_path):
    check_places(tmp_path / "new" / "deep", "tiny")
    (tmp_path / "out" / "tiny" / "run").mkdir(parents=True)
    (tmp_path / "out" / "tiny" / "latest").symlink_to("run")
    check_places(tmp_path / "out", "tiny")
