"""stockpot import: what it makes runs as it is, it says what it made, and bad input is one line and exit code 2."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from harness.imports.autogluon import write
from harness.suite.suite import read_suite
from tests.cli.command import call
from tests.imports.sources import (
    every_eval_ever,
    read_pool,
    routellm,
    routerbench,
    simulation_artifact,
    write_lines,
    write_tabarena,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("in_this_process")


def write_autogluon(folder):
    artifact = simulation_artifact(classes=4)
    artifact["pred_proba_dict_test"]["LightGBM"].iloc[0] = [1, 0, 0, 0]
    write(artifact, folder)
    return [folder]


def write_routerbench(folder):
    folder.mkdir()
    routerbench().to_parquet(folder / "table.parquet")
    return [folder / "table.parquet"]


def write_routellm(folder):
    folder.mkdir()
    routellm().to_csv(folder / "mmlu.csv", index=False)
    return [folder / "mmlu.csv"]


def write_every_eval_ever(folder):
    return [write_lines(folder / f"{name}_samples.jsonl", every_eval_ever(name, seed))
            for seed, name in enumerate(("a", "b"))]  # fmt: skip


SOURCES = {
    "autogluon": write_autogluon,
    "tabarena": lambda folder: [write_tabarena(folder, "labels.dat") and folder],
    "routerbench": write_routerbench,
    "routellm": write_routellm,
    "every_eval_ever": write_every_eval_ever,
}
RUN = ("autogluon", "routerbench")
"""Those that a test runs: one with probabilities, zeros among them, and one with right and wrong and costs."""


def one_line(text):
    return text.startswith("stockpot: ") and text.count("\n") == 1 and "Traceback" not in text


@pytest.mark.parametrize("name", SOURCES)
def test_the_suite_is_planned_as_it_is_and_the_next_command_is_printed(tmp_path, capsys, name):
    files = SOURCES[name](tmp_path / "source")
    code, out, _ = call(capsys, "import", *files, "--out", tmp_path / "my pool")
    assert code == 0
    members, splits = read_pool(tmp_path / "my pool")
    suite = tmp_path / "my pool" / "suite.yaml"
    assert out.splitlines()[-1] == f"next: stockpot run {suite}"
    counts = f"{len(members)} members, {len(splits['heldout'])} held-out and {len(splits['test'])} test rows"
    assert out.startswith(f"{name}: {counts}")
    assert read_suite(suite).pools["main"].size == len(members)
    code, out, err = call(capsys, "plan", suite, "--out", tmp_path / "results")
    assert (code, err) == (0, "")


@pytest.mark.parametrize("name", RUN)
def test_the_suite_runs_and_scores_are_those_of_the_source(tmp_path, capsys, name):
    files = SOURCES[name](tmp_path / "source")
    call(capsys, "import", *files, "--out", tmp_path / "pool")
    suite = tmp_path / "pool" / "suite.yaml"
    code, _, err = call(capsys, "run", suite, "--out", tmp_path / "results", "--workers", 1)
    assert code == 0, err
    (results,) = (tmp_path / "results" / "pool").glob("2*")
    variants = pd.read_csv(results / "variants.csv")
    assert set(variants["status"]) == {"ok"}
    members, splits = read_pool(tmp_path / "pool")
    test = splits["test"].index
    if name == "routerbench":
        shares = {frame["correct"][test].mean() for frame in members.values()}
        scores = pd.read_parquet(results / "scores.parquet")
        money = scores[(scores["metric"] == "cost/money") & (scores["variant"] == "majority_vote")]["value"].iloc[0]
        assert money == pytest.approx(sum(frame["cost_money"][test].mean() for frame in members.values()))
    else:
        shares = {(frame.loc[test].idxmax(axis=1) == splits["test"]["label"]).mean() for frame in members.values()}
    best = variants[variants["variant"] == "best_single"]["accuracy"].iloc[0]
    assert any(best == pytest.approx(share, abs=1e-12) for share in shares)


def test_members_are_named_with_an_equals_sign(tmp_path, capsys):
    files = SOURCES["every_eval_ever"](tmp_path / "source")
    code, out, _ = call(capsys, "import", f"first={files[0]}", f"second={files[1]}", "--out", tmp_path / "pool")
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()[2:4]} == {"first", "second"}


def test_an_import_is_the_same_every_time(tmp_path, capsys):
    files = SOURCES["routerbench"](tmp_path / "source")
    for folder in ("a", "b"):
        call(capsys, "import", *files, "--out", tmp_path / folder / "pool", "--threshold", 0.5)
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / f / "pool").iterdir()} for f in "ab")
    assert first == second


def csv(text, encoding="utf-8"):
    return lambda path: path.with_suffix(".csv").write_bytes(text.encode(encoding)) and path.with_suffix(".csv")


def jsonl(change):
    def make(path):
        text = "".join(json.dumps(line) + "\n" for line in every_eval_ever("m")).encode()
        path.with_suffix(".jsonl").write_bytes(change(text))
        return path.with_suffix(".jsonl")

    return make


def pickle(path):
    routerbench().to_pickle(path.with_suffix(".pkl"))
    return path.with_suffix(".pkl")


def renamed_pickle(path):
    routerbench().to_pickle(path.with_suffix(".pkl"))
    return path.with_suffix(".pkl").rename(path.with_suffix(".csv"))


def parquet_cut(path):
    routerbench().to_parquet(path.with_suffix(".parquet"))
    data = path.with_suffix(".parquet").read_bytes()
    path.with_suffix(".parquet").write_bytes(data[: len(data) // 2])
    return path.with_suffix(".parquet")


def npz_cut(path):
    file = write(simulation_artifact(), path)
    file.write_bytes(file.read_bytes()[:2000])
    return file


def npz_of_objects(path):
    np.savez(path.with_suffix(".npz"), models=np.array([{}], dtype=object))
    return path.with_suffix(".npz")


def plain(path):
    pd.DataFrame(np.full((5, 2), 0.5), columns=["cat", "dog"]).to_csv(path.with_suffix(".csv"))
    return path.with_suffix(".csv")


def mixed(path):
    return [*write_routellm(path), *write_every_eval_ever(path.with_name("others"))]


HEAD = "sample_id,prompt,eval_name,m,m|total_cost\n"
BAD = {
    "nothing there": (lambda path: path, [], "no such file"),
    "an empty folder": (lambda path: path.mkdir() or path, [], "no known format"),
    "an empty file": (csv(" "), [], "no known format"),
    "a table of something else": (csv("name,city\nx,y\n"), [], "no known format of predictions (known: autogluon, "),
    "a format that there is not": (csv(HEAD), ["--format", "routerbenhc"], "did you mean 'routerbench'"),
    "a pickle": (pickle, [], "to_parquet('routerbench_0shot.parquet')"),
    "a pickle of a named format": (pickle, ["--format", "autogluon"], "harness.imports.autogluon.write("),
    "a pickle with another name": (renamed_pickle, [], "a pickle can run code"),
    "predictions as they are": (plain, [], "needs no import"),
    "files of two formats": (mixed, [], "files of several formats"),
    "a line that is cut off": (jsonl(lambda text: text[:-40]), [], ".jsonl:30: a line is no JSON"),
    "lines in another encoding": (jsonl(lambda text: text + b"\xff\xfe\n"), [], "is not UTF-8"),
    "a table in another encoding": (csv(HEAD + "1,ä,b,1,0\n", "latin-1"), ["--format", "routerbench"], "is not UTF-8"),
    "a parquet file that is cut off": (parquet_cut, ["--format", "routerbench"], "no parquet that can be read"),
    "an npz that is cut off": (npz_cut, ["--format", "autogluon"], "cannot be read"),
    "an npz of objects": (npz_of_objects, ["--format", "autogluon"], "cannot be read"),
    "two columns of one name": (csv(HEAD.strip() + ",m\n1,p,e,1,0,1\n"), [], "two columns are called 'm'"),
    "more cells than columns": (csv(HEAD + "1,p,e,1,0\n2,p,e,1,0,7,8\n"), [], "no csv that can be read"),
    "a row twice": (csv(HEAD + "1,p,e,1,0\n1,p,e,1,0\n"), [], "'1' occurs twice"),
    "a score that is no number": (csv(HEAD + "1,p,e,yes,0\n"), [], "is no number"),
    "a single row": (csv(HEAD + "1,p,e,1,0\n"), [], "leave the heldout split empty"),
    "a cost below zero": (csv(HEAD + "1,p,e,1,-1\n2,q,e,1,0\n"), [], "cost_money that is no number from 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_exit_code_2_and_no_folder(tmp_path, capsys, name):
    make, options, message = BAD[name]
    made = make(tmp_path / "source")
    files = made if isinstance(made, list) else [made]
    code, out, err = call(capsys, "import", *files, *options, "--out", tmp_path / "pool")
    assert (code, out) == (2, "")
    assert one_line(err), err
    assert message in err
    assert not (tmp_path / "pool").exists()
    assert not list(tmp_path.glob(".pool*"))


def test_a_folder_that_is_not_empty_is_left_as_it_is(tmp_path, capsys):
    files = SOURCES["routellm"](tmp_path / "source")
    code, _, err = call(capsys, "import", *files, "--out", tmp_path / "source")
    assert code == 2
    assert re.search("the folder of --out is not empty", err)
    assert [path.name for path in (tmp_path / "source").iterdir()] == ["mmlu.csv"]


def test_formats_are_listed_with_what_to_do_about_pickles(capsys):
    code, out, _ = call(capsys, "ls", "formats")
    assert code == 0
    names = [line for line in out.splitlines() if not line.startswith(" ")]
    assert names == sorted(["lm_eval", "plain", *SOURCES])
    assert "where it is a pickle: pandas.read_pickle(" in out


def test_an_import_from_a_moved_folder_is_the_same(tmp_path, capsys):
    files = SOURCES["tabarena"](tmp_path / "one")
    shutil.copytree(files[0], tmp_path / "elsewhere" / "deep")
    for source, out in ((files[0], "a"), (tmp_path / "elsewhere" / "deep", "b")):
        assert call(capsys, "import", source, "--out", tmp_path / out / "pool")[0] == 0
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / f / "pool").iterdir()} for f in "ab")
    assert first == second
