"""--store from the command line: what another machine has made is not made again, and no secret of its URL is kept."""

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from harness.store import check_again
from tests.cli.command import SUITE, call

pytestmark = pytest.mark.usefixtures("in_this_process")


@pytest.fixture(name="suite")
def _suite(tmp_path):
    yield write(tmp_path / "suite.yaml")
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def write(path):
    path.write_text(SUITE + "cost: {latency: false, memory: false}\n")
    return path


def test_a_second_machine_makes_nothing_again_and_no_secret_is_kept(suite, capsys, tmp_path):
    url = "memory://user:canary@place/folder"
    for name, said in (("one", " 0 reused"), ("two", " 0 jobs run")):
        code, printed, told = call(capsys, "run", suite, "--out", tmp_path / name, "--store", url, "--workers", 1)
        assert code == 0
        assert said in told
        assert "canary" not in printed + told
        assert not any(b"canary" in path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file())
        check_again()
    code, printed, _ = call(capsys, "plan", suite, "--out", tmp_path / "three", "--store", url)
    assert code == 0
    rows = [line.split() for line in printed.splitlines()]
    counts = [row[1:] for row in rows if row[:1] in (["members"], ["build"], ["score"])]
    assert counts
    assert all((jobs, to_run) == (reused, "0") for jobs, reused, to_run in counts)
    assert not list((tmp_path / "three" / ".store").glob("training/*/*"))  # a plan copies nothing that it does not read


@pytest.mark.parametrize("verb", ["run", "plan"])
def test_a_place_that_cannot_be_reached_is_one_line_and_nothing_is_made(suite, capsys, tmp_path, verb):
    code, printed, told = call(capsys, verb, suite, "--out", tmp_path / "out", "--store", "nowhere://user:canary@host/x")
    assert (code, printed) == (2, "")
    assert told == ("stockpot: nowhere://host/x: the shared store is not to be reached: "
                    "Protocol not known: nowhere\n")  # fmt: skip
    assert not (tmp_path / "out").exists()
