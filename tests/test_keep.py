"""What is left of a run that is committed."""

import json

import pandas as pd

from tests.keep import keep


def test_scores_that_a_column_has_and_the_details_of_later_seeds_go(tmp_path):
    pd.DataFrame({"variant": ["a"], "accuracy": [0.5]}).to_csv(tmp_path / "variants.csv", index=False)
    scores = pd.DataFrame({"variant": ["a", "a"], "metric": ["accuracy", "cost/money"], "value": [0.5, 3.0]})
    scores.to_parquet(tmp_path / "scores.parquet", index=False)
    pd.DataFrame({"seed": ["0", "all"]}).to_parquet(tmp_path / "comparisons.parquet", index=False)
    (tmp_path / "details.json").write_text(json.dumps({"a": {"0": {"x": 1}, "1": {"x": 2}}, "b": {}}))
    keep(tmp_path)
    assert pd.read_parquet(tmp_path / "scores.parquet").to_dict("list")["metric"] == ["cost/money"]
    assert pd.read_parquet(tmp_path / "comparisons.parquet")["seed"].tolist() == ["all"]
    assert json.loads((tmp_path / "details.json").read_text()) == {"a": {"0": {"x": 1}}, "b": {}}


def test_a_run_without_scores_is_kept_too(tmp_path):
    (tmp_path / "details.json").write_text("{}")
    keep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["details.json"]


def test_numbers_of_tables_have_nine_digits_and_all_else_is_as_it_was(tmp_path):
    table = pd.DataFrame({"variant": ["nan", "b"], "seed": ["0", "all"], "n": [1e4, None], "low": [1 / 3, -2e-7 / 3],
                          "params": ['{"a": 0.1}', "{}"], "pareto": [True, False]})  # fmt: skip
    table.to_csv(tmp_path / "variants.csv", index=False)
    (tmp_path / "details.json").write_text("{}")
    keep(tmp_path)
    kept = pd.read_csv(tmp_path / "variants.csv", dtype={"seed": str}, keep_default_na=False, na_values=[""])
    assert kept["low"].tolist() == [0.333333333, -6.66666667e-08]
    pd.testing.assert_frame_equal(kept.drop(columns="low"), table.drop(columns="low"))
