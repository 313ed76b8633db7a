"""A metric that a plug-in declares is in every table, rule and report."""


import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import matthews_corrcoef, top_k_accuracy_score

from harness.cli.main import main
from harness.compare import as_rows, compare
from harness.engines import local
from harness.errors import BadInput
from harness.evaluate import predictions
from harness.gate.policy import read_policy
from harness.publish.model_card import model_index
from harness.report import write_report
from harness.results.evidence import Evidence, Missing, read_tables
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.run.stages import setting, variant
from harness.suite.suite import read_suite
from tests.evaluate.added_metrics import MCC, declare
from tests.gate.planted import again
from tests.inline import Inline

SUITE = """suite: added
task: digits
pool: {train: {architecture: mlp, start: shared_base, base_epochs: 1, members: 2, epochs: 1, options: {hidden: 8}}}
seeds: [0, 1]
methods: [best_single, linear, uniform_soup]
cost: {latency: false, memory: false, energy: false}
"""


def plan(folder):
    (folder / "suite.yaml").write_text(SUITE)
    return make_plan(read_suite(folder / "suite.yaml"), Options(out=folder / "results", device="cpu"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of a run with both metrics, and of one of the same store without them."""
    folder = tmp_path_factory.mktemp("added")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(local, "_Pools", Inline)
        without = runner.run(plan(folder), Tracker())
        declare(patched, "mcc", "top2")
        yield runner.run(plan(folder), Tracker()), without
    for cached in (setting.task_of, setting.documents_of, variant.pool_of):
        cached.cache_clear()


@pytest.fixture
def found(runs):
    return read_tables(runs[0])


def test_its_values_are_in_the_wide_table_and_the_tidy_one_with_their_intervals(found):
    rows, examples = found.variants.set_index(["variant", "seed"]), found.examples
    for seed in (0, 1):
        of_seed = examples[(examples["variant"] == "linear") & (examples["seed"] == seed)]
        row = rows.loc[("linear", str(seed))]
        assert row["mcc"] == pytest.approx(matthews_corrcoef(of_seed["label"], of_seed["prediction"]))
        assert row["top2"] == pytest.approx(of_seed["in_top2"].mean())
        assert row["mcc_low"] < row["mcc"] < row["mcc_high"]
    whole = rows.loc[("linear", "all")]
    assert whole["mcc"] == pytest.approx(rows.loc[[("linear", "0"), ("linear", "1")], "mcc"].mean())
    assert whole[["mcc_low", "mcc_high"]].isna().all()  # of several seeds it says no interval
    assert whole["top2_low"] < whole["top2"] < whole["top2_high"]
    tidy = found.scores.set_index(["variant", "seed", "metric"])
    assert tidy.loc[("linear", "all", "top2"), ["value", "low", "high"]].tolist() == pytest.approx(
        whole[["top2", "top2_low", "top2_high"]].tolist()
    )
    assert tidy.loc[("linear", "0", "mcc"), "low"] == pytest.approx(rows.loc[("linear", "0"), "mcc_low"])


def test_its_outcome_is_that_of_the_predictions(runs, found):
    planned = plan(runs[0].parents[2])
    linear = planned.variants[0]["linear"]
    combination, test = variant.load_built(planned.setting, linear), setting.task_of(planned.setting).test
    probs = np.exp(predictions.predict(combination.log_probs, test).numpy())
    of_seed = found.examples[(found.examples["variant"] == "linear") & (found.examples["seed"] == 0)]
    expected = top_k_accuracy_score(test.labels.numpy(), probs, k=2, labels=list(range(10)))
    assert of_seed["in_top2"].mean() == pytest.approx(expected)
    assert of_seed["in_top2"].dtype == bool


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("match: {variant: linear, metric: mcc}, min: -0.5", 0),
        ("match: {variant: linear, metric: mcc}, min: 0.999", 3),
        ("match: {variant: linear, metric: mcc, seed: 0}, min: -0.5, apply_to: ci_low", 0),
        ("match: {variant: linear, metric: top2}, min: 0.1, apply_to: ci_low", 0),
        ('match: {variant: linear, metric: top2}, vs: "variant:best_single", max_drop: {abs: 0.5}, test: paired', 0),
        ("match: {metric: top2}, vs: baseline, max_drop: {abs: 0.1}, test: paired", 0),
    ],
)
def test_rules_are_about_it(runs, tmp_path, capsys, rule, code):
    baseline = again(runs[0], tmp_path / "baseline")
    path = tmp_path / "policy.yaml"
    path.write_text(f"version: 1\nrules:\n- {{id: r, {rule}}}\n")
    with pytest.raises(SystemExit) as stopped:
        main(["gate", str(runs[0]), "--policy", str(path), "--baseline", str(baseline)])
    assert stopped.value.code == code, capsys.readouterr()


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("match: {metric: mcc}, vs: baseline, max_increase: {abs: 0.1}", "'mcc' is better when higher"),
        ("match: {metric: mcc}, min: -1.5", "'mcc' lies in -1 .. 1"),
        ("match: {metric: mcc}, vs: baseline, max_drop: {abs: 0.1}, test: paired", "no value for each example"),
        ("match: {metric: mmc}, min: 0", "did you mean 'mcc'"),
    ],
)
def test_a_rule_that_contradicts_its_declaration_is_refused(runs, tmp_path, rule, words):
    path = tmp_path / "policy.yaml"
    path.write_text(f"version: 1\nrules:\n- {{id: r, {rule}}}\n")
    with pytest.raises(BadInput, match=words):
        read_policy(path)


def test_a_run_that_was_made_without_it_lacks_it_and_says_so(runs):
    before = Evidence(read_tables(runs[1]), "baseline")
    assert "mcc" not in before.run.variants
    with pytest.raises(Missing, match="no top2 of 'linear'"):
        before.score("linear", "all", "top2")
    with pytest.raises(Missing, match="made without that metric"):
        before.outcomes("linear", "all", "top2")
    write_report(runs[1])


def test_the_report_has_a_column_for_it_and_every_number_once_more(runs, found):
    page = write_report(runs[0]).read_text()
    row = found.variants.set_index(["variant", "seed"]).loc[("linear", "all")]
    main, every = page.split('<table id="numbers">')
    assert f'>{row["mcc"]:.3f}</td>' in main
    assert f'title="{row["top2_low"]:.3f} .. {row["top2_high"]:.3f}">{row["top2"]:.3f}</td>' in main
    for name in ("mcc", "top2", "brier", "aurc", "params_stored"):
        assert f">{name} <small>" in every
    assert f'{row["brier"]:.3f} <small>[{row["brier_low"]:.3f} .. {row["brier_high"]:.3f}]</small>' in every
    assert "latency_ms_p50</th>" not in every  # which was not measured
    lines = runs[0].joinpath("report.md").read_text().splitlines()
    head = next(line for line in lines if line.startswith("| variant | accuracy"))
    cells = next(line for line in lines if line.startswith("| `linear`")).split(" | ")
    assert cells[head.split(" | ").index("top2")].startswith(f"{row['top2']:.3f} [")
    assert "Matthews" in "\n".join(lines)


def test_two_runs_are_compared_by_it_example_by_example(runs, found):
    result = compare(found, found)
    linear = next(item for item in result.variants if item.variant == "linear")
    assert set(linear.differences) == {"nll", "brier", "top2"}
    assert linear.differences["top2"].value == 0
    columns, rows = as_rows(result)
    assert {"top2", "NLL", "FLOPs"} <= set(columns)
    assert all(len(row) == len(columns) for row in rows)
    before = compare(read_tables(runs[1]), found)
    assert "top2" not in next(item for item in before.variants if item.variant == "linear").differences


def test_a_model_card_tells_it(found):
    (entry,) = yaml.safe_load(model_index(found, "linear", "m"))["model-index"]
    told = {each["type"]: each["value"] for each in entry["results"][0]["metrics"]}
    row = found.variants.set_index(["variant", "seed"]).loc[("linear", "all")]
    assert (told["mcc"], told["top2"]) == pytest.approx((row["mcc"], row["top2"]))


def test_the_command_lists_it(runs, capsys):
    with pytest.raises(SystemExit):
        main(["ls", "metrics"])
    lines = capsys.readouterr().out.splitlines()
    words = lines[lines.index("mcc") + 1]
    assert all(each in words for each in (MCC.meaning, "higher is better", "-1 to 1"))


def test_what_all_had_before_is_unchanged(runs):
    before, after = (pd.read_csv(folder / "variants.csv") for folder in reversed(runs))
    pd.testing.assert_frame_equal(after[before.columns], before)
