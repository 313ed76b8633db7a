"""Costs of a run from the suite's keys to the table: times with their noise, energy where there is a meter, money."""

import os
import shutil

import pytest

from harness.cost import energy, memory
from harness.cost.meters import Meter, Reading
from harness.report import write_report
from harness.results.run import read_run
from harness.run import jobs, measuring, runner, tables
from harness.run.planning import Options, make_plan
from harness.run.progress import Tracker
from harness.store import read_json
from harness.suite.suite import read_suite

SUITE = """
suite: costs
task: digits
pool:
  train: {architecture: mlp, start: shared_base, base_epochs: 1, members: 2, epochs: 1, options: {hidden: 8}}
methods: [best_single, linear]
"""
ENERGY = ["energy_j_per_example", "energy_net_j_per_example", "energy_j_per_correct"]


def planned(folder, text=SUITE, **options):
    (folder / "suite.yaml").write_text(text)
    suite = read_suite(folder / "suite.yaml")
    return make_plan(suite, Options(out=folder / "results", workers=1, **options))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run without a meter of energy."""
    folder = tmp_path_factory.mktemp("costs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(energy, "meter_for", lambda device: Absent())
        energy.why_unavailable.cache_clear()
        found = read_run(runner.run(planned(folder), Tracker()))
    energy.why_unavailable.cache_clear()
    return folder, found


class Absent(Meter):
    unit = "J"

    def _begin(self):
        raise OSError("unplugged")

    def _end(self):
        raise AssertionError


class Steady(Meter):
    """Reads 100 J whenever it is stopped."""

    unit = "J"

    def _begin(self):
        pass

    def _end(self):
        return Reading(100.0, "J", "a meter")


def test_without_a_meter_no_time_is_spent_and_the_cells_say_why(first):
    _, found = first
    rows = found.variants[found.variants["status"] == "ok"]
    assert set(rows["energy_source"]) == {"unavailable: OSError: unplugged"}
    assert rows[ENERGY].isna().all(axis=None)
    assert "energy" not in (found.folder / "log.jsonl").read_text()
    assert "- Energy: unavailable: OSError: unplugged." in write_report(found.folder).with_name("report.md").read_text()


def test_the_reference_against_itself_is_the_noise_of_the_run(first):
    _, found = first
    noise = found.record["noise"]
    rows = found.variants[found.variants["seed"] == "all"].set_index("variant")
    reference = rows.loc["best_single"]
    assert (noise["low"], noise["latency_ratio"], noise["high"]) == pytest.approx(
        tuple(reference[f"latency_ratio_{end}"] for end in ("low", "p50", "high"))
    )
    assert noise["low"] <= noise["latency_ratio"] <= noise["high"]
    assert noise["clock"] in ("processor", "wall")
    assert (noise["threads"], noise["cores"]) == (1, sorted(os.sched_getaffinity(0)))
    assert reference["latency_verdict"] == "reference"
    assert rows.loc["linear", "latency_verdict"] in ("slower", "unclear")
    report = write_report(found.folder).with_name("report.md").read_text()
    assert f"against itself the reference takes {noise['latency_ratio']:.3f} times as long" in report


def test_the_noise_is_measured_again_whenever_anything_is_timed(first):
    folder, found = first
    more = read_run(runner.run(planned(folder, SUITE.replace("linear]", "linear, log_linear]")), Tracker()))
    # build, score, compare, summary, comparison, measure; and the reference's measurement
    assert more.record["summary"]["jobs_run"] == 7
    assert more.record["noise"]["measured"] > found.record["noise"]["measured"]
    again = read_run(runner.run(planned(folder), Tracker()))
    assert again.record["summary"]["jobs_run"] == 0
    assert again.record["noise"] == more.record["noise"]


def test_with_a_meter_every_variant_has_a_job_and_its_figures_are_consistent(first, monkeypatch):
    folder, _ = first
    monkeypatch.setattr(energy, "meter_for", lambda device: Steady())
    monkeypatch.setattr(energy.window, "__defaults__", (0.05,))
    monkeypatch.setattr(energy.per_example, "__defaults__", (0.05,))
    energy.why_unavailable.cache_clear()
    plan = planned(folder)
    missing = [job.job for job in plan.missing()]
    assert [job.name for job in missing] == ["idle power", "seed 0: measure best_single", "seed 0: measure linear"]
    assert {job.kind for job in missing} == {"alone"}
    for job in missing:
        job.function(**job.arguments)
    for name, variant in plan.variants[0].items():
        found = read_json(plan.store.path(variant.energy_key) / "energy.json")
        assert found["energy_net_j_per_example"] < found["energy_j_per_example"] < 100
        table = tables._Table(plan, plan.store, {})
        row = next(row for row in table.rows() if row["variant"] == name and row["seed"] == "all")
        assert row["energy_j_per_example"] == found["energy_j_per_example"]
        assert row["energy_j_per_correct"] == pytest.approx(found["energy_j_per_example"] / row["accuracy"])
        assert row["energy_source"].startswith("a meter; idle ")
    assert measuring.why_no_energy(plan.setting) is None
    assert not planned(folder).missing()
    energy.why_unavailable.cache_clear()


def test_what_a_meter_did_not_give_is_measured_again_by_the_next_run(tmp_path, monkeypatch):
    plan = planned(tmp_path, SUITE)
    runner.run(plan, Tracker())
    variant = plan.variants[0]["linear"]
    shutil.rmtree(plan.store.path(variant.memory_key))
    broken = memory.Memory(None, None, "unavailable: the meter broke")
    with monkeypatch.context() as patched:
        patched.setattr(memory, "peak_memory", lambda *_, **__: broken)
        with pytest.raises(RuntimeError, match="the meter broke"):
            measuring.measure_variant(plan.setting, variant, plan.reference(0), ("memory", "latency"))
    assert not plan.store.has(variant.memory_key)
    again = planned(tmp_path, SUITE)
    assert [job.job.name for job in again.missing()] == ["seed 0: measure linear"]


def test_a_processor_without_a_name_is_told_by_its_numbers(monkeypatch):
    found = set()
    for part in ("0xd0c", "0xd40"):
        lines = f"processor : 0\nCPU implementer : 0x41\nCPU part : {part}\n"
        monkeypatch.setattr(jobs.Path, "read_text", lambda self, lines=lines: lines)
        jobs.machine.cache_clear()
        found.add(jobs.machine())
    jobs.machine.cache_clear()
    assert len(found) == 2


def test_a_variant_that_fails_on_one_seed_has_failed_whatever_the_others_are(tmp_path):
    table = tables._Table(planned(tmp_path, SUITE), None, {})
    states = {"failed": ("failed", "it broke"), "inapplicable": ("not_applicable", "other shapes"), "ok": ("ok", "")}
    kept = {"variant": "v", "family": "", "method": "", "pool": "", "params": "", "members": 1, "energy_source": ""}
    for order in (("failed", "inapplicable"), ("inapplicable", "failed"), ("ok", "inapplicable", "failed")):
        rows = [{**kept, "seed": str(i), "status": states[state][0], "reason": states[state][1]}
                for i, state in enumerate(order)]  # fmt: skip
        found = table._summary(rows)
        assert found["status"] == "failed"
        assert found["reason"] == f"seed {order.index('failed')}: it broke"


def test_a_suite_may_do_without_energy(first, monkeypatch):
    folder, _ = first
    monkeypatch.setattr(energy, "meter_for", lambda device: Steady())
    energy.why_unavailable.cache_clear()
    plan = planned(folder, SUITE + "cost: {energy: false}\n")
    assert not plan.missing()
    why = tables._Table(plan, plan.store, {})._why_no_energy(plan.reference(0))
    assert why == "the suite does not ask for it"
    energy.why_unavailable.cache_clear()


def test_money_is_the_time_on_a_gpu_at_its_price(first):
    folder, _ = first
    priced = SUITE + "cost: {price_per_gpu_hour: 3.6}\n"
    on_gpu = tables._Table(planned(folder, priced, device="cuda"), None, {})
    assert on_gpu._money(1000.0) == pytest.approx(1.0)  # a million examples take 1,000 s at 0.001 a second
    assert tables._Table(planned(folder, priced, device="cpu"), None, {})._money(1000.0) is None
    assert tables._Table(planned(folder, SUITE, device="cuda"), None, {})._money(1000.0) is None
