"""stockpot gate and baseline: outcome on stdout, exit codes of the contract, usage errors on one line."""

import json

import pytest

from tests.cli.command import call
from tests.gate.planted import changed, coins, planted, saved, worse

GOOD = coins(0.9)
RUN = planted({"linear": GOOD, "ties": worse(GOOD, 9)})
POLICY = """version: 1
rules:
- {id: floor, match: {metric: accuracy}, min: %s}
"""


@pytest.fixture(autouse=True)
def _no_step_summary(monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def policy_file(tmp_path, text):
    (tmp_path / "policy.yaml").write_text(text)
    return tmp_path / "policy.yaml"


@pytest.mark.parametrize(
    ("rule", "code", "word"),
    [
        ("{id: a, match: {metric: accuracy}, min: 0.5}", 0, "PASSED"),
        ("{id: a, match: {metric: accuracy}, min: 0.95}", 3, "FAILED"),
        ('{id: a, match: {variant: ties, metric: accuracy}, vs: "variant:linear", max_drop: {abs: 0.02}, test: paired}',
         4, "INCONCLUSIVE"),
        ("{id: a, match: {variant: gone, metric: accuracy}, min: 0.5}", 5, "NO VERDICT"),
    ],
)  # fmt: skip
def test_every_outcome_has_its_exit_code_and_its_files(capsys, tmp_path, rule, code, word):
    run = saved(RUN, tmp_path / "run")
    policy = policy_file(tmp_path, f"version: 1\nrules:\n- {rule}\n")
    found, out, err = call(capsys, "gate", run, "--policy", policy, "--junit", tmp_path / "j.xml",
                           "--summary", tmp_path / "s.md")  # fmt: skip
    assert (found, err) == (code, "")
    assert out.startswith(f"gate {word} (exit code {code}): {run}\n")
    assert json.loads((run / "gate.json").read_text())["outcome"] in ("pass", "fail", "inconclusive", "error")
    assert f"**{word}**" in (tmp_path / "s.md").read_text()
    assert "<testsuites" in (tmp_path / "j.xml").read_text()


def test_the_summary_of_a_github_step_is_appended(capsys, tmp_path, monkeypatch):
    run, policy = saved(RUN, tmp_path / "run"), policy_file(tmp_path, POLICY % 0.5)
    (tmp_path / "step.md").write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    call(capsys, "gate", run, "--policy", policy)
    text = (tmp_path / "step.md").read_text()
    assert text.startswith("before\n| gate |")


@pytest.mark.parametrize(
    ("text", "words"),
    [(POLICY % "high", ["policy.yaml:3", "'min'"]), ("version: 1\n", ["'rules' is missing"]), ("", ["empty"])],
)
def test_a_bad_policy_is_one_line_and_exit_code_2(capsys, tmp_path, text, words):
    code, out, err = call(capsys, "gate", saved(RUN, tmp_path / "run"), "--policy", policy_file(tmp_path, text))
    assert (code, out, err.count("\n")) == (2, "", 1)
    for word in words:
        assert word in err
    assert not (tmp_path / "run" / "gate.json").exists()


def test_files_are_written_into_new_folders_and_where_that_cannot_be_nothing_is_judged(capsys, tmp_path):
    run, policy = saved(RUN, tmp_path / "run"), policy_file(tmp_path, POLICY % 0.5)
    for option in ("--junit", "--summary"):
        target = tmp_path / option / "deep" / "file"
        assert call(capsys, "gate", run, "--policy", policy, option, target)[0] == 0
        assert target.stat().st_size > 100
        (run / "gate.json").unlink()
        for bad in (tmp_path / option, target / "below"):
            code, out, err = call(capsys, "gate", run, "--policy", policy, option, bad)
            assert (code, out, err.count("\n")) == (2, "", 1)
            assert option in err
        assert not (run / "gate.json").exists()


def test_the_summary_of_the_step_is_added_to_also_where_it_is_named(capsys, tmp_path, monkeypatch):
    run, policy, step = saved(RUN, tmp_path / "run"), policy_file(tmp_path, POLICY % 0.5), tmp_path / "step"
    step.write_text("earlier\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    assert call(capsys, "gate", run, "--policy", policy, "--summary", step)[0] == 0
    assert step.read_text().startswith("earlier\n| gate |")


def test_what_a_candidate_stands_for_is_not_asked_of_a_run(capsys, tmp_path):
    run, policy = saved(RUN, tmp_path / "run"), policy_file(tmp_path, POLICY % 0.5)
    code, _, err = call(capsys, "gate", run, "--policy", policy, "--stands-for", "nonsense")
    assert (code, err.count("\n")) == (2, 1)


def test_a_folder_that_is_not_there_is_bad_usage_and_one_without_a_run_no_verdict(capsys, tmp_path):
    policy = policy_file(tmp_path, POLICY % 0.5)
    code, _, err = call(capsys, "gate", tmp_path / "none", "--policy", policy)
    assert (code, err.count("\n")) == (2, 1)
    (tmp_path / "stopped").mkdir()
    code, out, _ = call(capsys, "gate", tmp_path / "stopped", "--policy", policy)
    assert code == 5
    assert "no run.json" in out
    code, _, err = call(capsys, "gate", tmp_path / "stopped")
    assert code == 2
    assert "--policy" in err


def test_a_baseline_is_set_shown_and_gated_against_with_the_hash_in_the_policy(capsys, tmp_path):
    run, out = saved(RUN, tmp_path / "run"), tmp_path / "results"
    code, said, _ = call(capsys, "baseline", "set", run, "--reason", "reviewed", "--out", out)
    folder, sha256 = said.split("  sha256 ")
    assert code == 0
    assert call(capsys, "ls", "runs", "--out", out)[:2] == (0, "")  # a copy is not a run of its own
    _, shown, _ = call(capsys, "baseline", "show", "--out", out)
    assert "reviewed" in shown
    assert sha256.strip() in shown
    rule = "{id: a, match: {metric: accuracy}, vs: baseline, max_drop: {abs: 0.02}, test: paired}"
    text = f"version: 1\nbaseline: {{path: {folder}, sha256: {sha256.strip()}}}\nrules: [{rule}]\n"
    policy = policy_file(tmp_path, text)
    assert call(capsys, "gate", saved(RUN, tmp_path / "again"), "--policy", policy)[0] == 0
    assert call(capsys, "gate", run, "--policy", policy)[0] == 5  # shows no change
    assert call(capsys, "gate", saved(changed(RUN, limit=9), tmp_path / "b"), "--policy", policy)[0] == 5
    code, _, err = call(capsys, "baseline", "show", "--name", "other", "--out", out)
    assert code == 2
    assert "baseline set" in err


def test_a_policy_is_not_taken_for_a_suite(capsys, tmp_path):
    policy_file(tmp_path, POLICY % 0.5).rename(tmp_path / "mnist.policy.yaml")
    assert call(capsys, "ls", "suites", tmp_path)[:2] == (0, "")
