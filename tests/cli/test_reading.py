"""What shows runs and declarations: data on stdout, and a folder that is no run is one line."""

import json

from tests.cli.command import call
from tests.gate.planted import coins, planted, saved


def test_a_folder_that_is_no_run_cannot_be_reported(capsys, tmp_path):
    code, _, err = call(capsys, "report", tmp_path)
    assert code == 2
    assert "no run.json" in err


def test_the_schema_and_the_lists_know_every_method(capsys):
    _, out, _ = call(capsys, "schema")
    assert json.loads(out)["title"] == "Stockpot suite"
    _, methods, _ = call(capsys, "ls", "methods")
    for name in ("linear", "ties", "moe"):
        assert f"\n{name}  (" in f"\n{methods}"
        assert f'"{name}"' in out
    _, tasks, _ = call(capsys, "ls", "tasks")
    assert "mnist5k" in tasks


def test_compare_prints_a_table_or_json_and_refuses_what_is_no_run(capsys, tmp_path):
    first = saved(planted({"linear": coins(0.8), "old": coins(0.8)}), tmp_path / "a")
    second = saved(planted({"linear": coins(0.9)}), tmp_path / "b")
    code, out, _ = call(capsys, "compare", first, second)
    assert code == 0
    row = next(line for line in out.splitlines() if line.startswith("linear"))
    assert row.split()[1:3] == ["better", "+10.00"]
    assert "only in the first run: old" in out
    code, out, _ = call(capsys, "compare", first, second, "--json")
    assert code == 0
    assert json.loads(out)["variants"][0]["verdict"] == "better"
    for pair in ((first, tmp_path), (tmp_path / "none", second)):
        code, out, err = call(capsys, "compare", *pair)
        assert (code, out, err.count("\n")) == (2, "", 1)


def test_history_lists_the_runs_of_a_suite_and_knows_the_others(capsys, tmp_path):
    code, out, _ = call(capsys, "history", "--out", tmp_path)
    assert (code, out) == (0, "")
    code, _, err = call(capsys, "history", "mnist", "--out", tmp_path)
    assert code == 2
    assert "no runs" in err
