"""What fits, from a suite to the plan's table and the run's record."""

import json
import shutil

import pytest

from harness.cli.main import main
from harness.display.capacity import COLUMNS, unpredicted_words
from harness.report import write_report
from harness.results.manifest import MANIFEST
from harness.results.run import read_run
from harness.run import capacity, record, runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.process import process_bytes
from harness.run.progress import Tracker
from harness.run.stages.measure import MeasureOnce
from harness.suite.suite import read_suite

pytestmark = pytest.mark.usefixtures("undrawn")

SUITE = """
suite: fits
task: digits
pool:
  train: {architecture: mlp, start: shared_base, base_epochs: 1, members: 3, epochs: 1, options: {hidden: 1500}}
pools:
  mixed: {train: {architecture: [mlp, small_cnn], start: independent, members: 2, epochs: 1}}
methods: [best_single, linear, uniform_soup, distill: {epochs: 1}, linear: {pool: mixed}, log_linear,
          linear: {weights: contextual}]
cost: {latency: false, memory_budget: 1GB}
"""


def planned(folder, text=SUITE, out=None):
    path = folder / "suite.yaml"
    path.write_text(text)
    suite = read_suite(path)
    return make_plan(suite, Options(out=out or folder / "results", workers=2))


def results_of(found):
    """The folder that a run is in: what it measured of this machine need not be measured again."""
    return found.folder.parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    plan = planned(tmp_path_factory.mktemp("fits"))
    return plan, read_run(runner.run(plan, Tracker()))


def test_the_prediction_is_in_the_record_and_beside_what_was_measured(run):
    _, found = run
    record = found.record["capacity"]
    assert (record["budget_bytes"], record["budget_source"]) == (10**9, "the suite's memory_budget")
    assert list(record["pools"]) == ["main", "mixed"]
    main = record["pools"]["main"]
    rows = found.variants[found.variants["seed"] == "all"].set_index("variant")
    assert rows.loc["uniform_soup", "predicted_memory_bytes"] == main["bytes_of_one"]
    assert rows.loc["linear", "predicted_memory_bytes"] == main["bytes_of_all"]
    assert rows.loc["best_single", "predicted_memory_bytes"] == main["bytes_of_one"]
    for unknown in ("distill/epochs=1", "mixed:linear", "log_linear", "linear/weights=contextual"):
        assert rows.loc[unknown].isna()["predicted_memory_bytes"]
    heavy = rows.loc["linear"]
    assert heavy["working_memory_bytes"] == pytest.approx(heavy["predicted_memory_bytes"], rel=0.1)
    scores = found.scores[found.scores["metric"] == "predicted_memory_bytes"]
    assert set(scores["source"]) == {"analytic"}


def test_the_plan_and_the_run_say_the_same_of_a_process_and_measure_it_in_one(run):
    plan, found = run
    told = found.record["capacity"]["process_bytes"]
    assert process_bytes(plan) == told
    peaks = found.variants.dropna(subset="peak_memory_bytes")
    level = peaks["peak_memory_bytes"] - peaks["working_memory_bytes"]
    assert level.median() == pytest.approx(told, rel=0.35)  # that of the variants is after a first batch


def test_a_process_that_was_not_measured_costs_the_run_nothing_else(tmp_path):
    plan = planned(tmp_path)
    assert MeasureOnce(plan.setting, "memory").read() is None
    assert record._capacity(plan) is None


def test_a_pool_that_cannot_be_told_is_named(run, monkeypatch):
    plan, found = run
    monkeypatch.setattr(capacity, "needed", lambda *_: None)
    budget = capacity.budget_of(plan, process_bytes(plan))
    record = capacity.as_record(budget, [], capacity.unpredicted(plan, list(capacity.capacities(plan, budget))))
    assert record["untold"] == ["main", "mixed"]
    assert "main, mixed" in unpredicted_words(record)
    assert unpredicted_words(found.record["capacity"]) == ""


def test_the_report_shows_it(run):
    _, found = run
    page = write_report(found.folder)
    for text in (page.read_text(), page.with_name("report.md").read_text()):
        assert "What fits in memory" in text
        assert "1.00 GB" in text
        assert "3 variants needed" in text


def test_a_run_of_an_earlier_version_has_a_report_without_it(run, tmp_path):
    _, found = run
    folder = tmp_path / "run"
    shutil.copytree(found.folder, folder)
    (folder / MANIFEST).unlink()
    record = json.loads((folder / "run.json").read_text())
    del record["capacity"]
    (folder / "run.json").write_text(json.dumps(record))
    found.variants.drop(columns="predicted_memory_bytes").to_csv(folder / "variants.csv", index=False)
    assert "What fits" not in write_report(folder).read_text()


def test_the_largest_architecture_of_a_pool_counts(run):
    plan, _ = run
    budget = capacity.budget_of(plan, process_bytes(plan))
    mixed = next(one for one in capacity.capacities(plan, budget) if one.pool == "mixed")
    each = [capacity.needed(plan, member.architecture) for member in plan.pools[0]["mixed"].members]
    assert mixed.need in each
    assert mixed.bytes_of_all == max(one.bytes(2, mixed.batch) for one in each)


def test_what_is_asked_for_goes_before_the_suite_and_the_suite_before_the_device(run, tmp_path):
    plan, found = run
    assert capacity.budget_of(plan, 1, 5 * 10**9).bytes == 5 * 10**9
    assert capacity.budget_of(plan, 1).bytes == 10**9
    without = planned(tmp_path, SUITE.replace(", memory_budget: 1GB", ""), results_of(found))
    plain = capacity.budget_of(without, process_bytes(without))
    assert plain.source == "all of the device"
    assert plain.bytes > 10**9
    assert 0 < plain.process < plain.bytes


def test_an_architecture_that_needs_values_to_run_has_no_prediction_and_the_rest_has(run, monkeypatch):
    plan, _ = run

    def fails(architecture, inputs, device):
        raise RuntimeError("data-dependent")

    monkeypatch.setattr(capacity, "need", fails)
    monkeypatch.setattr(capacity, "Key", Elsewhere)
    assert list(capacity.capacities(plan, capacity.budget_of(plan, process_bytes(plan)))) == []


class Elsewhere:
    """Keys under which nothing is yet."""

    @staticmethod
    def of(kind, **inputs):
        from harness.keys import Key

        return Key.of(kind + "-elsewhere", **inputs)


def test_a_bad_budget_is_one_line(tmp_path, capsys):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE.replace("1GB", "24XB"))
    for arguments in (["plan", str(path)], ["plan", "suites/smoke.yaml", "--memory", "24XB"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        message = capsys.readouterr().err
        assert "24XB" in message
        assert "such as 24GB" in message
        assert message.count("\n") == 1


def test_plan_prints_what_fits(run, tmp_path, capsys):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE)
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(path), "--out", str(results_of(run[1])), "--memory", "2GB"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("what fits in 2.00 GB (as asked)"))
    assert lines[at + 1].split() == " ".join(COLUMNS).split()
    assert [line.split()[:2] for line in lines[at + 2 :]] == [["main", "3"], ["mixed", "2"]]
