"""Baselines: a copy with a reason and a hash, in place of what was there."""

import json

import pytest

from harness.errors import BadInput
from harness.gate.baseline import FILES, describe, files_sha256, open_baseline, set_baseline
from harness.results.evidence import read_tables
from tests.gate.planted import TODAY, changed, coins, planted, saved

RUN = planted({"linear": coins(0.9, n=50)}, measures={"linear": {"acc/a": coins(0.9, n=20)}})


def test_a_baseline_is_the_run_with_a_reason_a_date_and_a_hash(tmp_path):
    run = saved(RUN, tmp_path / "run")
    (run / "report.html").write_text("large")
    folder = set_baseline(run, tmp_path / "results", "main", " release 1.2 ", TODAY)
    assert folder == tmp_path / "results" / "baselines" / "main"
    assert sorted(p.name for p in folder.iterdir()) == sorted([*FILES, "baseline.json", "manifest.json"])
    assert all((folder / name).read_bytes() == (run / name).read_bytes() for name in FILES)
    record = json.loads((folder / "baseline.json").read_text())
    assert record == {"name": "main", "reason": "release 1.2", "date": "2026-11-25", "run": "20261125-000000-run",
                      "git_commit": "abc", "sha256": files_sha256(run)}  # fmt: skip
    found, sha256, problems = open_baseline(folder, record["sha256"])
    assert (found.record, sha256, problems) == (read_tables(run).record, record["sha256"], [])


def test_setting_it_again_replaces_it_and_leaves_nothing_behind(tmp_path):
    first, second = saved(RUN, tmp_path / "a"), saved(planted({"linear": coins(0.8, n=50)}), tmp_path / "b")
    for run in (first, second):
        folder = set_baseline(run, tmp_path, "main", "why", TODAY)
    assert files_sha256(folder) == files_sha256(second) != files_sha256(first)
    assert [p.name for p in folder.parent.iterdir()] == ["main"]


@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte_is_noticed(tmp_path, name):
    folder = set_baseline(saved(RUN, tmp_path / "run"), tmp_path, "main", "why", TODAY)
    before = files_sha256(folder)
    assert "CHANGED" not in describe(folder)
    path = folder / name
    path.write_bytes(path.read_bytes() + b"\n")
    assert files_sha256(folder) != before
    problems = " ".join(open_baseline(folder, None)[2])
    assert "changed since it was set" in problems or "cannot be read" in problems
    assert "CHANGED" in describe(folder)


def test_a_record_that_is_damaged_is_no_baseline(tmp_path):
    folder = set_baseline(saved(RUN, tmp_path / "run"), tmp_path, "main", "why", TODAY)
    for text in ("{", "[]", "{}"):
        (folder / "baseline.json").write_text(text)
        run, _, problems = open_baseline(folder, None)
        assert run is None
        assert "cannot be read" in problems[0]


def test_a_damaged_record_is_not_described(tmp_path):
    folder = set_baseline(saved(RUN, tmp_path / "run"), tmp_path, "main", "two\nlines \x1b[31m", TODAY)
    assert describe(folder).count("\n") == 5
    assert "\x1b" not in describe(folder)
    for text in ("{", "[]", "{}"):
        (folder / "baseline.json").write_text(text)
        with pytest.raises(BadInput, match="not what it was written as"):
            describe(folder)


def test_a_link_is_replaced_and_what_it_leads_to_is_kept(tmp_path):
    run = saved(RUN, tmp_path / "run")
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines/main").symlink_to(run)
    folder = set_baseline(run, tmp_path, "main", "why", TODAY)
    assert (run / "run.json").is_file()
    assert not folder.is_symlink()
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="no baseline can be put there"):
        set_baseline(run, tmp_path / "file", "main", "why", TODAY)


@pytest.mark.parametrize(
    ("field", "words"),
    [({"limit": 5}, "limited to 5"), ({"only": "x"}, "only some variants"), ({"status": "incomplete"}, "incomplete"),
     ({"examples": None}, "examples.parquet")],
)  # fmt: skip
def test_a_run_that_is_not_whole_cannot_be_one(tmp_path, field, words):
    run = saved(changed(RUN, **field), tmp_path / "run")
    with pytest.raises(BadInput, match=words):
        set_baseline(run, tmp_path, "main", "why", TODAY)
    assert not (tmp_path / "baselines").exists()


@pytest.mark.parametrize(("name", "reason"), [("main", " "), ("../main", "why"), ("", "why"), ("a/b", "why")])
def test_it_needs_a_name_and_a_reason(tmp_path, name, reason):
    run = saved(RUN, tmp_path / "run")
    with pytest.raises(BadInput):
        set_baseline(run, tmp_path, name, reason, TODAY)


def test_a_run_that_is_limited_is_no_baseline_for_a_gate_either(tmp_path):
    _, _, problems = open_baseline(saved(changed(RUN, limit=5), tmp_path / "run"), None)
    assert problems == ["the baseline: the run was limited to 5 test examples (--limit)"]
