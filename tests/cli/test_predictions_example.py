"""The README's example of models from elsewhere: two models of scikit-learn, as files of what they said."""

import pandas as pd
import pytest

from tests.cli.command import call

SCRIPT = """\
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

table, labels = load_digits(return_X_y=True, as_frame=True)
for file, rows in {"heldout.csv": slice(800, 1200), "test.csv": slice(1200, None)}.items():
    labels[rows].rename("label").to_csv(file, index_label="id")
for name, model in {"logistic": LogisticRegression(max_iter=3000), "forest": RandomForestClassifier(random_state=0)}.items():
    said = model.fit(table[:800], labels[:800]).predict_proba(table[800:])
    pd.DataFrame(said, table.index[800:], model.classes_).to_csv(f"{name}.csv", index_label="id")
"""  # noqa: E501
SUITE = """\
suite: elsewhere
task: {table: {heldout: heldout.csv, test: test.csv}}
pool: {predictions: {members: {logistic: logistic.csv, forest: forest.csv}}}
methods: [best_single, linear, log_linear, greedy_ensemble, majority_vote]
"""


def test_the_example_works(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(SCRIPT, "example", "exec"), {})
    (tmp_path / "suite.yaml").write_text(SUITE)
    code, out, err = call(capsys, "run", "suite.yaml")
    assert code == 0, err
    rows = pd.read_csv(f"{out.strip()}/variants.csv").query("seed == 'all'").set_index("variant")
    assert (rows["status"] == "ok").all()
    assert rows.loc["linear", "accuracy"] > 0.9
    assert pd.notna(rows.loc["linear", "nll"])  # whatever the forest's is


@pytest.mark.parametrize("floor", [None, 1e-3])
def test_a_tree_without_a_floor_has_all_scores_but_its_nll_and_the_run_says_what_helps(
    capsys, tmp_path, monkeypatch, floor
):
    monkeypatch.chdir(tmp_path)
    ids = range(40)
    labels = pd.DataFrame({"id": ids, "label": [k % 2 for k in ids]})
    labels[:20].to_csv("heldout.csv", index=False)
    labels[20:].to_csv("test.csv", index=False)
    pd.DataFrame({"id": ids, "0": 1.0, "1": 0.0}).to_csv("tree.csv", index=False)
    tree = "tree.csv" if floor is None else f"{{file: tree.csv, floor: {floor}}}"
    (tmp_path / "suite.yaml").write_text(SUITE.replace("logistic: logistic.csv, forest: forest.csv", f"tree: {tree}"))
    code, _, err = call(capsys, "run", "suite.yaml")
    assert code == 0, err
    folder = tmp_path / "results/elsewhere/latest"
    rows = pd.read_csv(folder / "variants.csv")
    assert (rows["accuracy"] == 0.5).all()
    assert rows["nll"].isna().all() == (floor is None)
    warning = "its NLL is infinite: 10 of 20 test labels were given probability 0; a floor"
    assert (warning in (folder / "report.md").read_text()) == (floor is None)
