"""Models from elsewhere that give a label probability 0, as trees do."""

import pandas as pd
import pytest

from tests.cli.command import call
from tests.readme import shown

pytestmark = pytest.mark.usefixtures("in_this_process")

SUITE = shown("yaml")["elsewhere.yaml"]


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
