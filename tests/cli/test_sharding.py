"""A run in shards, from the command line: each says that it is a part, and merge-runs makes the run."""

import pytest

from harness.results.run import read_run
from tests.cli.command import NO_DROP, SUITE, call

pytestmark = pytest.mark.usefixtures("in_this_process")


@pytest.fixture(scope="module", name="shards")
def _shards(tmp_path_factory):
    """Two shards with stores of their own, and the suite."""
    folder = tmp_path_factory.mktemp("sharding")
    (folder / "suite.yaml").write_text(SUITE + "cost: {latency: false, memory: false}\n")
    return folder


def test_shards_are_run_and_merged_and_say_what_they_are(shards, capsys, tmp_path):
    folders = []
    for number in (1, 2):
        out = shards / str(number)
        code, printed, said = call(capsys, "run", shards / "suite.yaml", "--out", out, "--shard", f"{number}/2",
                                   "--workers", 1)  # fmt: skip
        assert code == 0
        folders.append(printed.strip())
        assert printed.count("\n") == 1
        assert f"tiny, shard {number}/2: " in said
        assert "a part of a run: 'stockpot merge-runs' puts all shards together" in said
    (policy := tmp_path / "policy.yaml").write_text(NO_DROP)
    for verb in (("report", folders[0]), ("compare", folders[0], folders[1]), ("export", folders[0], "linear", "x"),
                 ("baseline", "set", folders[0], "--reason", "r", "--out", tmp_path), ("model-index", folders[0], "a"),
                 ("eval-results", folders[0], "linear", "--dataset", "d", "--task", "t"),
                 ("history", "tiny", "--out", shards / "1"),
                 ("gate", folders[0], "--policy", policy)):  # fmt: skip
        code, printed, said = call(capsys, *verb)
        assert code == (5 if verb[0] == "gate" else 2), verb
        line = next(line for line in (printed + said).splitlines() if "shard" in line and "merge-runs" in line)
        assert "a part of a run" in line or "not merged yet" in line
        assert verb[0] == "gate" or (printed, said.count("\n")) == ("", 1)
    for verb in ("history", ("ls", "runs")):
        code, printed, _ = call(capsys, *([verb] if isinstance(verb, str) else verb), "--out", shards / "1")
        assert (code, printed) == (0, "")
    code, printed, said = call(capsys, "merge-runs", folders[0], "--out", tmp_path / "merged")
    assert (code, printed, said) == (2, "", "stockpot: of 2 shards these are missing: 2; run each with --shard 2/2, "
                                            "and name all folders\n")  # fmt: skip
    code, printed, said = call(capsys, "merge-runs", *folders, "--out", tmp_path / "merged")
    assert code == 0
    assert "tiny: 2 variants (2 ok)" in said
    found = read_run(printed.strip())
    assert found.record["status"] == "complete"
    assert (found.folder / "report.html").is_file()
    assert call(capsys, "baseline", "set", found.folder, "--reason", "whole", "--out", tmp_path)[0] == 0
    policy.write_text("version: 1\nrules:\n- {id: some, match: {metric: accuracy}, min: 0.05}\n")
    code, printed, said = call(capsys, "gate", found.folder, "--policy", policy)
    assert code == 0, printed
    code, printed, said = call(capsys, "merge-runs", found.folder)
    assert (code, printed, said.count("\n")) == (2, "", 1)
    assert "this run is whole: there is nothing to merge" in said


def test_a_part_that_is_none_is_refused_before_anything_is_read(capsys, tmp_path):
    code, printed, said = call(capsys, "run", tmp_path / "no.yaml", "--shard", "0/4")
    assert (code, printed, said.count("\n")) == (2, "", 1)
    assert "bad --shard '0/4'" in said
    assert "counted from 1" in said
