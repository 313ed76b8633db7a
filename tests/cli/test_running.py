"""Planning and running suites: a mistake is one line on stderr and exit code 2, data goes to stdout."""

import pytest

from harness import stats
from tests.cli.command import NO_DROP, SUITE, call
from tests.gate.planted import again, coins, planted, saved


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("  - linear\n", "  - linaer\n", ["suite.yaml:7", "unknown method 'linaer'", "did you mean 'linear'?"]),
        ("task: digits", "task: digit", ["suite.yaml:2", "did you mean 'digits'?", "mnist5k"]),
        ("suite: tiny", "suite: tiny\nsiute: x", ["suite.yaml:2", "unknown key 'siute'", "did you mean 'suite'?"]),
        ("task: digits", "task: digits\ntask: digits", ["suite.yaml:3", "'task'"]),
        ("epochs: 1", "epochs: many", ["suite.yaml:4", "'many'", "'epochs'"]),
        ("epochs: 1", "epochs: 1, vary: {lr: [.inf]}", ["suite.yaml:4"]),
        ("members: 2", "members: 0", ["suite.yaml:4", "pool is empty"]),
        ("  - linear\n", "  - linear: {weigths: learned}\n", ["suite.yaml:7", "did you mean 'weights'?"]),
    ],
)
def test_a_bad_suite_is_one_line_with_its_place_and_exit_code_2(capsys, tmp_path, old, new, words):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE.replace(old, new))
    code, out, err = call(capsys, "validate", path)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def test_a_missing_suite_file_is_one_line(capsys, tmp_path):
    code, _, err = call(capsys, "run", tmp_path / "none.yaml")
    assert code == 2
    assert err.count("\n") == 1
    assert "none.yaml" in err


@pytest.mark.parametrize(
    ("option", "word"),
    [(("--only", "linaer"), "linear"), (("--device", "gpu"), "cuda"), (("--engine", "rya"), "local")],
)
def test_an_unknown_choice_names_the_known_ones(capsys, tmp_path, option, word):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE)
    code, _, err = call(capsys, "run", path, "--out", tmp_path / "results", *option)
    assert code == 2
    assert err.count("\n") == 1
    assert word in err


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_device_or_folder_that_there_is_not_is_refused_before_the_run(capsys, tmp_path, command):
    path, taken = tmp_path / "suite.yaml", tmp_path / "taken"
    path.write_text(SUITE)
    taken.write_text("")
    for words in (("--device", "cuda:99", "--out", tmp_path / "results"), ("--out", taken)):
        code, _, err = call(capsys, command, path, *words)
        assert code == 2
        assert err.count("\n") == 1
        assert words[0] in err
    assert taken.read_text() == ""


def test_validate_lists_the_variants_and_plan_the_jobs(capsys, tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE)
    code, out, _ = call(capsys, "validate", path)
    assert (code, out.splitlines()) == (0, ["best_single", "linear"])
    code, out, _ = call(capsys, "plan", path, "--out", tmp_path / "results")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert code == 0
    assert rows["train"] == ["2", "0", "2"]
    assert rows["build"] == ["2", "0", "2"]


def test_run_prints_the_folder_and_keeps_everything_else_off_stdout(capsys, tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE)
    code, out, err = call(capsys, "run", path, "--out", tmp_path / "results")
    assert code == 0
    folder = tmp_path / "results" / "tiny" / "latest"
    assert out.strip() == str(folder.parent / folder.readlink())
    assert (folder / "report.html").is_file()
    assert "predict_seconds" in err
    code, out, _ = call(capsys, "ls", "runs", "--out", tmp_path / "results")
    assert "complete, 2 of 2 variants ok" in out
    assert_gated(capsys, tmp_path, folder)
    weights, policy = tmp_path / "weights", tmp_path / "policy.yaml"
    code, out, _ = call(capsys, "export", folder, "best_single", weights)
    assert (code, out.strip()) == (0, str(weights))
    code, _, err = call(capsys, "export", folder, "linear", tmp_path / "none")
    assert code == 2
    assert "output rule over 2 models" in err
    policy.write_text(NO_DROP)
    candidate = ("gate", "--candidate", weights, "--suite", path, "--policy", policy, "--out", tmp_path / "results")
    code, out, _ = call(capsys, *candidate, "--baseline", folder)
    assert code == 0, out
    assert "gate PASSED" in out
    report = next((tmp_path / "results/tiny-candidate").glob("*-*/report.html"))
    assert "candidate" in report.read_text()
    code, _, err = call(capsys, *candidate)
    assert code == 2
    assert "--baseline RUN" in err
    code, out, _ = call(capsys, "history", "tiny", "--out", tmp_path / "results")
    assert [line.split()[1] for line in out.splitlines()[2:]] == ["reference", "output", "single"]
    code, out, _ = call(capsys, "cache", "verify", "--out", tmp_path / "results")
    assert (code, out) == (0, "")
    damaged = next((tmp_path / "results/.store/training").rglob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    code, out, _ = call(capsys, "cache", "verify", "--out", tmp_path / "results")
    assert code == 1
    assert str(damaged) in out


def test_several_suites_run_at_once_and_each_prints_its_folder_and_its_report(capsys, tmp_path):
    paths = [tmp_path / "tiny.yaml", tmp_path / "other.yaml"]
    suite = SUITE + "cost: {latency: false, memory: false, energy: false}\n"
    paths[0].write_text(suite)
    paths[1].write_text(suite.replace("suite: tiny", "suite: other").replace("  - linear", "  - log_linear"))
    code, out, err = call(capsys, "run", *paths, "--out", tmp_path / "results")
    assert code == 0
    latest = [tmp_path / "results" / suite / "latest" for suite in ("tiny", "other")]
    assert out.splitlines() == [str(link.parent / link.readlink()) for link in latest]
    assert all((link / "report.html").is_file() for link in latest)
    assert err.count("jobs to run") == 1  # one display
    assert [line.split(" in ")[1].split(" with ")[1].split(";")[0] for line in err.splitlines() if " in " in line] == [
        "other", "tiny",
    ]  # fmt: skip
    assert "together with other" in (latest[0] / "report.md").read_text()


def test_a_mistake_in_the_last_suite_is_found_before_the_first_is_run(capsys, tmp_path):
    (tmp_path / "good.yaml").write_text(SUITE)
    (tmp_path / "bad.yaml").write_text(SUITE.replace("epochs: 1", "epochs: 1, options: {hiden: 3}"))
    code, out, err = call(capsys, "run", tmp_path / "good.yaml", tmp_path / "bad.yaml", "--out", tmp_path / "results")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert not (tmp_path / "results/tiny").exists()


def test_ctrl_c_is_one_line_that_says_how_to_go_on(capsys, tmp_path, monkeypatch):
    def interrupt(plans, progress):
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.run.runner.run_together", interrupt)
    (tmp_path / "suite.yaml").write_text(SUITE)
    code, out, err = call(capsys, "run", tmp_path / "suite.yaml", "--out", tmp_path / "results")
    assert (code, out, err.count("\n")) == (130, "", 1)
    assert "run the same command again" in err


def assert_gated(capsys, tmp_path, folder):
    """A run has all that a gate asks for, and is no worse than itself."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "version: 1\ncomparable: [suite_digest, example_ids, dtype, batch_policy]\nrules:\n"
        "- {id: drop, match: {metric: accuracy}, vs: baseline, max_drop: {abs: 0.05}, test: paired}\n"
        "- {id: nll, match: {metric: nll}, vs: baseline, max_increase: {abs: 0.05}, test: paired}\n"
        "- {id: latency, match: {metric: latency_ratio_p50}, vs: baseline, max_increase: {rel: 0.1}}\n"
    )
    results = tmp_path / "results"
    assert call(capsys, "baseline", "set", folder, "--reason", "the first", "--out", results)[0] == 0
    baseline = results / "baselines" / "main"
    other = again(folder, tmp_path / "again")
    code, out, _ = call(capsys, "gate", other, "--policy", policy, "--baseline", baseline)
    assert (code, out.splitlines()[-1].split(";")[0]) == (0, "  6 checks: 6 pass"), out


def test_plan_says_how_many_examples_a_policy_lacks(capsys, tmp_path):
    path, policy = tmp_path / "suite.yaml", tmp_path / "policy.yaml"
    path.write_text(SUITE)
    policy.write_text(NO_DROP)
    plan = ("plan", path, "--out", tmp_path / "results")
    code, out, _ = call(capsys, *plan, "--policy", policy)
    assert code == 0
    needed = stats.examples_needed(0.02, 0.1, alpha=0.05 / 2)
    row = next(line for line in out.splitlines() if line.startswith("no-drop")).split()
    assert row[1:7] == ["2", "2.00", "points", f"{needed:,}", "700", f"{needed - 700:,}"]
    assert "too few" in out
    earlier = saved(planted({"best_single": coins(0.8, seeds=2), "linear": coins(0.8, seeds=2)}), tmp_path / "run")
    code, out, _ = call(capsys, *plan, "--policy", policy, "--from", earlier)
    assert "between the seeds of the earlier run" in out
    code, _, err = call(capsys, *plan, "--from", earlier)
    assert (code, err.count("\n")) == (2, 1)
