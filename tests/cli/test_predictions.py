"""Files of predictions and labels that cannot be used: one line that says what is wrong and where, and exit code 2."""

import pickle

import numpy as np
import pandas as pd
import pytest

from harness.models.prediction_join import TOLERANCE
from tests.cli.command import NO_DROP, call
from tests.pools import planted_predictions as planted
from tests.pools.planted_predictions import CLASSES, IDS, LABELS, ROWS, SUITE, logits, probabilities, wide

pytestmark = pytest.mark.usefixtures("in_this_process")

METHODS = "  - best_single\n  - linear\n"


def npz(**arrays):
    return lambda path: np.savez(path, **arrays)


def changed(**columns):
    """Member b's table with other values, as CSV."""
    return lambda path: wide(1).assign(**columns).to_csv(path, index=False)


def spoiled(row, column, value):
    def write(path):
        table = wide(1)
        table.loc[row, column] = value
        table.to_csv(path, index=False)

    return write


def text(content):
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def cut(write, share=0.5):
    def cut_off(path):
        write(path)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return cut_off


def parquet(table):
    return lambda path: table.to_parquet(path, index=False)


def long(change=lambda table: table):
    return lambda path: change(wide(1).melt("id", CLASSES, "class", "probability")).to_csv(path, index=False)


class Pickled:
    def __reduce__(self):
        return print, ("a pickle was run",)


def pickled(path):
    np.savez(path, ids=np.array(IDS, object), probabilities=probabilities(1))


MEMBER_FAULTS = {
    "an id is missing": ("b.csv", lambda path: wide(1)[1:].to_csv(path, index=False), "1 of the task's 90 ids"),
    "an id is extra": ("b.csv", changed(id=["other", *IDS[1:]]), "1 ids are none of the task's, such as 'other'"),
    "an id is there twice": ("b.csv", changed(id=[IDS[1], *IDS[1:]]), "the id 'q1' stands there twice"),
    "ids are floats": ("b.parquet", parquet(wide(1).assign(id=np.arange(ROWS) * 1.0)), "ids are none of the task's"),
    "another class": ("b.csv", lambda path: wide(1).rename(columns={"cat": "cow"}).to_csv(path, index=False),
                      "the class 'cow', and the task has ape, bee, cat"),
    "a class is missing": ("b.csv", lambda path: wide(1).drop(columns="cat").to_csv(path, index=False),
                           "lacks the class 'cat'"),
    "a class is there twice": ("b.npz", npz(ids=IDS, classes=["ape", "bee", "bee"], probabilities=probabilities(1)),
                               "the class 'bee' is there twice"),
    "classes have no names": ("b.npz", npz(ids=IDS, probabilities=probabilities(1)), "does not name its 3 classes"),
    "fewer names than columns": ("b.npz", npz(ids=IDS, classes=CLASSES[:2], logits=logits(1)), "2 classes are named"),
    "probabilities sum to more": ("b.csv", changed(ape=probabilities(1)[:, 0] + 2 * TOLERANCE), "sum to 1.002"),
    "a negative probability": ("b.npz", npz(ids=IDS, classes=CLASSES, probabilities=probabilities(1) - 0.5),
                               "a probability is -"),
    "NaN": ("b.csv", spoiled(4, "bee", float("nan")), "'bee'"),
    "infinite": ("b.npz", npz(ids=IDS, classes=CLASSES, probabilities=probabilities(1) * np.inf), "NaN or infinite"),
    "NaN logits": ("b.npz", npz(ids=IDS, classes=CLASSES, logits=logits(1) * np.nan), "a logit is NaN"),
    "logits that exclude all": ("b.npz", npz(ids=IDS, classes=CLASSES, logits=np.full((ROWS, 3), -np.inf)), "-inf"),
    "log-probabilities of another sum": ("b.npz", npz(ids=IDS, classes=CLASSES, log_probabilities=logits(1)),
                                         "the exponentials sum to"),
    "a form that cannot be told": ("b.npz", npz(ids=IDS, classes=CLASSES, predictions=logits(1)), "form: logits"),
    "a pickle": ("b.npz", pickled, "pickled objects, which are not read"),
    "no archive": ("b.npz", lambda path: path.write_bytes(pickle.dumps(Pickled())), "pickled objects, which are not"),
    "a cut archive": ("b.npz", cut(npz(ids=IDS, classes=CLASSES, logits=logits(1))), "was it cut off?"),
    "a cut Parquet file": ("b.parquet", cut(parquet(wide(1))), "was it cut off?"),
    "a cut CSV file": ("b.csv", cut(changed()), "b.csv"),
    "an empty file": ("b.csv", text(""), "the file is empty"),
    "a header only": ("b.csv", text("id,ape,bee,cat\n"), "the table has no rows"),
    "a row too short": ("b.csv", text("id,ape,bee,cat\nq0,1,0\n"), "Expected 4 columns, got 3"),
    "another encoding": ("b.csv", text("id,ape,bee,cät\n".encode("latin-1")), "save it as UTF-8"),
    "two encodings": ("b.csv", text("id,answer\nq0,ä\n".encode() + "q1,ä\n".encode("latin-1")), "save it as UTF-8"),
    "UTF-16": ("b.csv", text("id,ape,bee,cat\n".encode("utf-16")), "save it as UTF-8"),
    "words for numbers": ("b.csv", changed(bee="much"), "the column 'bee' holds no numbers"),
    "a column twice": ("b.csv", text("id,ape,ape\nq0,1,0\n"), "the column 'ape' is there twice"),
    "no ids": ("b.csv", lambda path: wide(1).rename(columns={"id": "name"}).to_csv(path, index=False),
               "the column 'id' is missing"),
    "nothing beside the ids": ("b.csv", lambda path: wide(1)[["id"]].to_csv(path, index=False), "it has no column"),
    "an unknown array": ("b.npz", npz(ids=IDS, probs=probabilities(1)), "unknown array 'probs'; did you mean 'prob"),
    "two matrices": ("b.npz", npz(ids=IDS, logits=logits(1), probabilities=probabilities(1)), "and one of"),
    "more rows than ids": ("b.npz", npz(ids=IDS[1:], classes=CLASSES, logits=logits(1)), "not [N, C] of 89 ids"),
    "a class twice of one id": ("b.csv", long(lambda table: pd.concat([table, table[:1]])), "stands there twice"),
    "a class never of one id": ("b.csv", long(lambda table: table[1:]), "stands there never"),
    "costs that differ over an id": ("b.csv", long(lambda table: table.assign(cost_ms=np.arange(3 * ROWS))),
                                     "'cost_ms' differs over the rows"),
    "a negative cost": ("b.csv", changed(cost_ms=-1), "'cost_ms' of the id 'q0' is -1"),
    "an unknown answer": ("b.csv", lambda path: pd.DataFrame({"id": IDS, "answer": "dog"}).to_csv(path, index=False),
                          "the answer 'dog' is none of the task's classes"),
    "right and wrong of a task with labels": (
        "b.csv", lambda path: pd.DataFrame({"id": IDS, "correct": 1}).to_csv(path, index=False), "the task has labels"),
    "another ending": ("b.xlsx", text("id"), "'.xlsx' is no kind of file"),
    "no file": ("b.csv", lambda path: None, "there is no such file"),
}  # fmt: skip


def refused(capsys, folder, suite):
    """The one line of a suite that is refused before anything runs."""
    (folder / "suite.yaml").write_text(suite)
    code, out, err = call(capsys, "plan", folder / "suite.yaml", "--out", folder / "results")
    lines = err.strip().splitlines()
    assert (code, out) == (2, ""), err
    assert len(lines) == 1, err
    return lines[0]


@pytest.mark.parametrize("fault", MEMBER_FAULTS)
def test_a_member_that_cannot_be_used_is_refused_in_one_line(capsys, tmp_path, fault):
    name, write, words = MEMBER_FAULTS[fault]
    planted.write_pool(tmp_path)
    write(tmp_path / name)
    line = refused(capsys, tmp_path, SUITE.replace("b.parquet", name) + METHODS)
    assert words in line
    assert name in line


def with_labels(change):
    def write(folder):
        planted.write_labels(folder, change(planted.labels()))

    return write


def replaced(column, row, value):
    def change(table):
        table.loc[row, column] = value
        return table

    return with_labels(change)


TABLE_FAULTS = {
    "an id twice": (replaced("id", 1, "q0"), "", "the id 'q0' of a held-out row stands there twice"),
    "held-out rows among test rows": (replaced("id", ROWS - 1, "q0"), "", "stands there among the held-out rows too"),
    "no label": (replaced("label", 3, None), "", "the column 'label' has no value in row 4"),
    "no id": (replaced("id", 3, None), "", "the column 'id' has no value in row 4"),
    "one class": (with_labels(lambda table: table.assign(label="ape")), "", "nothing to tell apart"),
    "an unknown class": (with_labels(lambda table: table), ", classes: [ape, bee]", "'cat' is none of the classes"),
    "no such column": (with_labels(lambda table: table), ", label: klass", "the column 'klass' is missing"),
    "no such id column": (with_labels(lambda table: table), ", id: key", "the column 'key' is missing"),
    "no such cluster": (with_labels(lambda table: table), ", cluster: user", "the column 'user' is missing"),
    "labels of test only": (lambda folder: planted.labels()[:30][["id"]].to_csv(folder / "heldout.csv", index=False),
                            "", "the column 'label' is missing"),
    "another kind of file": (lambda folder: None, ", train: train.npz", "no such file"),
}  # fmt: skip


@pytest.mark.parametrize("fault", TABLE_FAULTS)
def test_labels_that_cannot_be_used_are_refused_in_one_line(capsys, tmp_path, fault):
    write, more, words = TABLE_FAULTS[fault]
    planted.write_pool(tmp_path)
    write(tmp_path)
    assert words in refused(capsys, tmp_path, SUITE.replace("test.csv}", f"test.csv{more}}}") + METHODS)


SUITE_FAULTS = {
    "a file twice": ("b: b.parquet", "b: a.npz", "'a.npz' is the file of 'a' too"),
    "an unknown form": ("b.parquet", "{file: b.parquet, form: odds}", "form"),
    "another form than the file's": ("a.npz", "{file: a.npz, form: probabilities}", "says logits, and the suite prob"),
    "probabilities that are said to be logits": ("b.parquet", "{file: b.parquet, form: logits}", "as probabilities do"),
    "an unknown key": ("b.parquet", "{file: b.parquet, path: x}", "unknown key 'path'"),
    "no members": ("{a: a.npz, b: b.parquet, c: c.csv}", "{}", "the pool is empty"),
    "a task that is run": ("task: {table: {heldout: heldout.csv, test: test.csv}}", "task: digits",
                           "holds predictions, which the task 'digits' is not for"),
    "a pool that is run": ("{predictions: {members: {a: a.npz, b: b.parquet, c: c.csv}}}",
                           "{train: {architecture: mlp, start: independent, members: 2}}", "mlp"),
    "a study": ("methods:", "correlate: {subsets: {sizes: [2]}}\nmethods:", "there are no averages to study: a is"),
    "several seeds": ("methods:", "seeds: [0, 1]\nmethods:", "the members are the same on every seed"),
    "splits by seed": ("methods:", "split: per_seed\nmethods:", "one split, which all seeds share"),
    "one class to name": ("test: test.csv}", "test: test.csv, classes: [ape]}", "classes"),
}  # fmt: skip


@pytest.mark.parametrize("fault", SUITE_FAULTS)
def test_suites_that_cannot_be_are_refused_in_one_line(capsys, tmp_path, fault):
    old, new, words = SUITE_FAULTS[fault]
    planted.write_pool(tmp_path)
    assert old in SUITE
    assert words in refused(capsys, tmp_path, SUITE.replace(old, new) + METHODS)


@pytest.mark.parametrize(("column", "score"), [("answer", "nll"), ("correct", "brier")])
def test_a_score_that_needs_probabilities_is_refused_where_no_member_has_them(capsys, tmp_path, column, score):
    labels = planted.labels() if column == "answer" else planted.labels()[["id"]]
    planted.write_labels(tmp_path, labels)
    planted.write_answers(tmp_path, column)
    suite = SUITE.replace("a.npz", "a.csv").replace("b.parquet", "b.csv").replace("methods", f"score: {score}\nmethods")
    assert f"the suite's score is {score}, and member a" in refused(capsys, tmp_path, suite + METHODS)


def test_the_command_runs_gates_and_refuses_to_export(capsys, tmp_path):
    """A candidate is a file here: the better of two files passes where the worse one is the baseline."""
    planted.write_pool(tmp_path)
    (tmp_path / "suite.yaml").write_text(SUITE.replace("b: b.parquet, c: c.csv", "b: b.parquet") + METHODS)
    (tmp_path / "policy.yaml").write_text(NO_DROP.replace("metric: accuracy", "metric: cost/money").replace(
        "max_drop: {abs: 0.02}", "max_increase: {abs: 7}"))  # fmt: skip
    code, out, err = call(capsys, "run", tmp_path / "suite.yaml", "--out", tmp_path / "out")
    assert code == 0, err
    run = out.strip()
    code, _, err = call(capsys, "export", run, "best_single", tmp_path / "model")
    assert code == 2
    assert "known by its predictions only" in err
    assert not (tmp_path / "model").exists()
    given = ["--policy", tmp_path / "policy.yaml", "--baseline", run, "--suite", tmp_path / "suite.yaml",
             "--out", tmp_path / "out", "--candidate"]  # fmt: skip
    code, out, err = call(capsys, "gate", *given, tmp_path / "c.csv")
    assert code == 0, out + err
    assert "1 pass" in out
    code, _, err = call(capsys, "gate", *given, tmp_path / "heldout.csv")
    assert code == 2
    assert len(err.strip().splitlines()) == 1


def test_a_task_of_predictions_is_validated_planned_and_in_the_schema(capsys, tmp_path):
    planted.write_pool(tmp_path)
    (tmp_path / "suite.yaml").write_text(SUITE + METHODS)
    assert call(capsys, "validate", tmp_path / "suite.yaml")[:2] == (0, "best_single\nlinear\n")
    code, out, _ = call(capsys, "plan", tmp_path / "suite.yaml", "--out", tmp_path / "out")
    assert code == 0
    assert "memory" not in out
    assert "measure" not in out
    _, schema, _ = call(capsys, "schema")
    assert '"PredictionsPool"' in schema
    assert '"LabelFiles"' in schema
    assert LABELS.max() == 2
