"""A run's folder whose files are damaged or edited ends in what was asked for, or in one line and exit code 2."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.errors import BadInput
from harness.results.damaged import reading_run
from tests.cli.command import call

WHOLE = Path(__file__).parents[2] / "results" / "reference" / "tables"
FILES = ("run.json", "details.json", "variants.csv", "scores.parquet", "comparisons.parquet")
WRONG = (None, True, -1, 1.5, "x", [], {}, [1], {"a": 1})
LOST = object()
VARIANT = "linear"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "tables" / "run"


def afresh(folder):
    shutil.rmtree(folder.parent, ignore_errors=True)
    shutil.copytree(WHOLE, folder, ignore=shutil.ignore_patterns("figures", "report.md"))


def verbs(folder):
    dataset = ("--dataset", "some/set", "--task", "t", "--metric", "cost/ms")  # which that table has kept
    return {
        "model-index": ("model-index", folder, VARIANT),
        "eval-results": ("eval-results", folder, VARIANT, *dataset),
        "history": ("history", "--out", folder.parents[1]),
        "ls runs": ("ls", "runs", "--out", folder.parents[1]),
        "compare": ("compare", WHOLE, folder),
    }


def check(capsys, words):
    """A mistake is a line on stderr; what is a finished answer is on stdout."""
    code, out, err = call(capsys, *words)
    assert code in (0, 2)
    if code == 2:
        assert err.startswith("stockpot: ")
        assert err.count("\n") == 1
    return code, out, err


def places(value, at=(), deep=4):
    yield at
    keys = value if isinstance(value, dict) else range(min(len(value), 2)) if isinstance(value, list) else ()
    for key in keys if deep else ():
        yield from places(value[key], (*at, key), deep - 1)


def changed(value, at, new):
    if not at:
        return new
    inner = value
    for key in at[:-1]:
        inner = inner[key]
    if new is LOST:
        del inner[at[-1]]
    else:
        inner[at[-1]] = new
    return value


def test_the_whole_run_is_read_by_all(folder, capsys):
    afresh(folder)
    codes = {verb: check(capsys, words)[0] for verb, words in verbs(folder).items()}
    assert codes == {**dict.fromkeys(codes, 0), "compare": codes["compare"]}  # which needs examples


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_wrong_value_ends_in_one_line_or_in_an_answer(folder, capsys, data):
    afresh(folder)
    file = folder / data.draw(st.sampled_from(("run.json", "run.json", "details.json")))
    value = json.loads(file.read_text())
    at = data.draw(st.sampled_from(list(places(value))[:400]))
    new = data.draw(st.sampled_from((*WRONG, LOST) if at else WRONG))
    file.write_text(json.dumps(changed(value, at, new)))
    check(capsys, verbs(folder)[data.draw(st.sampled_from(sorted(verbs(folder))))])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_ends_in_one_line_or_in_an_answer(folder, capsys, data):
    afresh(folder)
    file = folder / data.draw(st.sampled_from(FILES))
    content = file.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    damage = data.draw(st.sampled_from(["cut", "flip", "lost", "noise", "empty"]))
    file.unlink()
    if damage != "lost":
        flipped = content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]
        made = {"cut": content[:at], "flip": flipped, "noise": bytes(range(256)), "empty": b""}
        file.write_bytes(made[damage])
    check(capsys, verbs(folder)[data.draw(st.sampled_from(sorted(verbs(folder))))])


@pytest.mark.parametrize("damage", ["details.json", "variants.csv"])
def test_a_report_of_a_damaged_run_is_one_line(folder, capsys, damage):
    afresh(folder)
    (folder / damage).write_text("")
    code, _, err = check(capsys, ("report", folder))
    assert code == 2
    assert str(folder) in err


def test_a_run_that_cannot_be_read_is_left_out_of_the_list_and_named(folder, capsys):
    afresh(folder)
    shutil.copytree(folder, folder.with_name("other"))
    (folder / "run.json").write_text('{"schema_version": 2, "summary": {"ok": 1}}')
    code, out, err = call(capsys, "ls", "runs", "--out", folder.parents[1])
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [str(folder.with_name("other"))]
    assert err.startswith(f"left out: {folder}: ")


@given(st.sampled_from([KeyError, IndexError, ValueError, TypeError, OSError, RecursionError]), st.text(max_size=30))
@example(KeyError, "suite")
@example(ValueError, "a\nb\x1b\ud800")
def test_whatever_reading_raises_names_the_folder_and_the_kind_of_error(kind, words):
    with pytest.raises(BadInput, match=kind.__name__) as refused, reading_run(Path("some/run")):
        raise kind(words)
    assert refused.value.place == "some/run"
    assert len(str(refused.value).splitlines()) <= 1


def test_a_path_that_is_too_long_is_one_line(capsys):
    for words in (("report", "a" * 300), ("plan", "a" * 300), ("gate", WHOLE, "--policy", "a" * 300)):
        assert check(capsys, words)[0] == 2
