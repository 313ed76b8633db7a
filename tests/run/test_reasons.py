"""Whatever a method raises costs its own row only, and what it says is a line of bounded length wherever it stands."""

import json

import pytest

from harness.cli.main import main
from harness.methods.method import Method
from harness.results.run import read_run
from harness.types import NotApplicable
from tests.inline import in_this_process

SUITE = """suite: tiny
question: "which \\e[2J\\n::error::of them?"
task: digits
pool:
  train: {architecture: mlp, start: shared_base, base_epochs: 1, members: 2, epochs: 1, options: {hidden: 4}}
methods: [best_single, linear, log_linear, majority_vote, uniform_soup, greedy_ensemble]
cost: {latency: false, memory: false, energy: false}
"""
RAISED = {
    "linear": SystemExit(0),
    "log_linear": KeyboardInterrupt(),
    "majority_vote": ValueError("a\n::error::b\x1b[2J\ud800" + "x" * 2_000_000),
    "uniform_soup": NotApplicable("a\n::error::b\x1b[2J\ud800" + "y" * 2_000_000),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run, and what the command printed."""
    folder = tmp_path_factory.mktemp("reasons")
    (folder / "suite.yaml").write_text(SUITE)
    apply = Method.apply

    def breaks(method, *arguments):
        if method.name in RAISED:
            raise RAISED[method.name]
        return apply(method, *arguments)

    with pytest.MonkeyPatch.context() as patch, in_this_process():
        patch.setattr(Method, "apply", breaks)
        with pytest.raises(SystemExit) as stopped:
            main(["run", str(folder / "suite.yaml"), "--out", str(folder / "out")])
    assert stopped.value.code == 0
    return folder / "out" / "tiny" / "latest"


def test_each_costs_its_own_row(finished):
    run = read_run(finished)
    rows = run.variants[run.variants["seed"] == "all"].set_index("variant")
    failed = {"linear", "log_linear", "majority_vote"}
    assert set(rows.index[rows["status"] == "failed"]) == failed
    assert set(rows.index[rows["status"] == "not_applicable"]) == {"uniform_soup"}
    assert set(rows.index[rows["status"] == "ok"]) == {"best_single", "greedy_ensemble"}
    assert rows.loc["linear", "reason"].endswith("SystemExit: 0")
    assert "KeyboardInterrupt" in rows.loc["log_linear", "reason"]


def test_reasons_are_short_printable_and_say_how_long_they_were(finished):
    run = read_run(finished)
    reasons = run.variants["reason"].dropna()
    assert len(reasons) == 8
    assert all(len(reason) <= 500 and reason.isprintable() for reason in reasons)
    for variant, written in (("majority_vote", "2,000,0"), ("uniform_soup", "2,000,0")):
        found = run.variants.set_index("variant").loc[variant, "reason"]
        assert all(r"::error::b\x1b[2J\ud800" in reason and written in reason for reason in found)


def test_the_folder_stays_small_and_no_file_of_it_holds_what_a_terminal_acts_on(finished):
    files = [file for file in finished.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files if file.suffix not in (".png", ".svg")) < 1_500_000
    for name in ("report.html", "report.md", "variants.csv", "log.jsonl", "run.json", "claims.json"):
        text = (finished / name).read_text(encoding="utf-8")
        assert not {"\x1b", "\0", "\x07"} & set(text), name
        assert name == "report.html" or "\n::error::" not in text, name  # a page may say it in a paragraph
    errors = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines() if '"trace"' in line]
    assert any("SystemExit" in (event["trace"] or "") for event in errors)


def test_what_is_printed_of_it_is_lines(finished, capsys):
    for command in (["ls", "suites", finished.parents[2]], ["ls", "runs", "--out", finished.parents[1]],
                    ["validate", finished.parents[2] / "suite.yaml"]):  # fmt: skip
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in command])
        assert stopped.value.code == 0
    said = "".join(capsys.readouterr())
    assert "\x1b" not in said
    assert not any(line.lstrip().startswith("::") for line in said.splitlines())
    assert r"which \x1b[2J ::error::of them?" in said
