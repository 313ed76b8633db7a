"""Where something cannot be written, or is asked of what a machine has not, is said in one line; nothing is lost."""

import json
import subprocess
import sys

import pytest

from harness.cli import main
from tests.cli.command import SUITE, call
from tests.gate.planted import coins, planted, saved

POLICY = "version: 1\nrules:\n- {id: floor, match: {metric: accuracy}, min: 0.5}\n"


@pytest.fixture
def suite(tmp_path):
    (tmp_path / "suite.yaml").write_text(SUITE)
    return tmp_path / "suite.yaml"


def one_line(capsys, *words):
    code, out, err = call(capsys, *words)
    assert code == 2
    assert err.startswith("stockpot: ")
    assert err.count("\n") == 1
    return out, err


@pytest.mark.parametrize("named", ["junit", "summary", "step"])
def test_a_verdict_is_shown_and_kept_where_a_file_beside_it_cannot_be_written(named, capsys, tmp_path, monkeypatch):
    """/dev/full takes nothing, as a full disk; the file that can be written is."""
    run = saved(planted({"linear": coins(0.9)}), tmp_path / "run")
    (tmp_path / "policy.yaml").write_text(POLICY)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "/dev/full" if named == "step" else str(tmp_path / "step.md"))
    words = {"junit": ("--junit", "/dev/full"), "summary": ("--summary", "/dev/full", "--junit", tmp_path / "j.xml"),
             "step": ("--junit", tmp_path / "j.xml")}[named]  # fmt: skip
    out, err = one_line(capsys, "gate", run, "--policy", tmp_path / "policy.yaml", *words)
    assert out.startswith("gate PASSED")
    assert json.loads((run / "gate.json").read_text())["outcome"] == "pass"
    assert "/dev/full" in err
    assert "No space left" in err
    assert (tmp_path / ("step.md" if named == "junit" else "j.xml")).is_file()


@pytest.mark.parametrize("device", ["cuda:99", "cuda:99999999999999999999"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_made(device, suite, capsys, tmp_path):
    for verb in ("plan", "run"):
        _, err = one_line(capsys, verb, suite, "--out", tmp_path / "out", "--device", device)
        assert device in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("limit", ["nan", "inf", "-1", "soon"])
def test_a_time_limit_is_a_number_of_seconds(limit, suite, capsys, tmp_path):
    code, _, err = call(capsys, "run", suite, "--out", tmp_path / "out", "--job-timeout", limit)
    assert code == 2
    assert "--job-timeout" in err
    assert not (tmp_path / "out").exists()


def test_a_file_for_a_folder_is_refused_by_all_that_would_write_there(suite, capsys, tmp_path):
    (tmp_path / "file").write_text("mine")
    for verb in ("plan", "run"):
        _, err = one_line(capsys, verb, suite, "--out", tmp_path / "file")
        assert "is a file" in err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_list_of_suites_that_is_empty_says_so(capsys, tmp_path):
    code, out, err = call(capsys, "ls", "suites", tmp_path)
    assert (code, out) == (0, "")
    assert str(tmp_path) in err
    _, err = one_line(capsys, "ls", "suites", tmp_path / "nowhere")
    assert "no such folder" in err


def test_what_is_printed_to_a_full_disk_is_a_line_and_no_traceback():
    command = [sys.executable, "-m", "harness.cli", "ls", "methods"]
    with open("/dev/full", "w") as full:
        found = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert found.returncode == 2
    assert found.stderr.startswith("stockpot: ")
    assert "No space left on device" in found.stderr
    assert found.stderr.count("\n") == 1


def test_who_reads_no_more_is_no_fault():
    command = [sys.executable, "-m", "harness.cli", "ls", "methods"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait() in (0, 1)  # as typer has it, where it is the one to see it
    assert said == ""


def test_ctrl_c_is_one_line_also_before_the_command_is_read(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "app", interrupted)
    code, _, err = call(capsys, "run", "suite.yaml")
    assert code == 130
    assert err == "stockpot: stopped; what is whole is kept: run the same command again\n"
