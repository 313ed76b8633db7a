"""Costs of a run from the suite's keys to the table: times with their noise, energy where there is a meter, money."""

import os
import shutil
from dataclasses import replace

import pytest

from harness import environment
from harness.cost import energy, memory
from harness.cost.meters import Meter, Reading
from harness.engines import local
from harness.registry import COSTS
from harness.report import write_report
from harness.results.run import read_run
from harness.run import runner
from harness.run.graph import measured, planned_jobs
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.run.stages.measure import Measure
from harness.run.tables import Tables
from harness.suite.suite import read_suite
from tests.inline import Inline

pytestmark = pytest.mark.usefixtures("undrawn")

SUITE = """
suite: costs
task: digits
pool:
  train: {architecture: mlp, start: shared_base, base_epochs: 1, members: 2, epochs: 1, options: {hidden: 8}}
methods: [best_single, linear]
"""
ENERGY = ["energy_j_per_example", "energy_net_j_per_example", "energy_j_per_correct"]


def stage_of(cost, plan, variant):
    return measured(plan, plan.variants[0][variant], cost)


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
    # build, score, summary, measure; and the reference's measurement
    assert more.record["summary"]["jobs_run"] == 5
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
    measured = [f"seed 0: measure {name}" for name in ("best_single", "linear")]
    assert [job.name for job in missing] == ["measure energy once", *measured]
    assert {job.place for job in missing} == {"alone"}
    for job in missing:
        job.function(**job.arguments)
    for name in plan.variants[0]:
        found = stage_of("energy", plan, name).read("energy")
        assert found["energy_net_j_per_example"] < found["energy_j_per_example"] < 100
        table = Tables(plan, {})
        row = next(row for row in table.rows() if row["variant"] == name and row["seed"] == "all")
        assert row["energy_j_per_example"] == found["energy_j_per_example"]
        assert row["energy_j_per_correct"] == pytest.approx(found["energy_j_per_example"] / row["accuracy"])
        assert row["energy_source"].startswith("a meter; idle ")
    assert not planned(folder).missing()
    energy.why_unavailable.cache_clear()


def test_what_a_meter_did_not_give_is_measured_again_by_the_next_run(tmp_path, monkeypatch):
    plan = planned(tmp_path, SUITE)
    runner.run(plan, Tracker())
    stage = Measure(plan.setting, plan.variants[0]["linear"], plan.reference(0), ("memory", "latency"))
    shutil.rmtree(plan.store.path(stage.key("memory")))
    broken = memory.Memory(None, None, "unavailable: the meter broke")
    with monkeypatch.context() as patched:
        patched.setattr(memory, "peak_memory", lambda *_, **__: broken)
        with pytest.raises(RuntimeError, match="the meter broke"):
            stage.run()
    assert stage.read("memory") is None
    again = planned(tmp_path, SUITE)
    assert [job.job.name for job in again.missing()] == ["seed 0: measure linear"]


def test_a_processor_without_a_name_is_told_by_its_numbers(monkeypatch):
    found = set()
    for part in ("0xd0c", "0xd40"):
        lines = f"processor : 0\nCPU implementer : 0x41\nCPU part : {part}\n"
        monkeypatch.setattr(environment.Path, "read_text", lambda self, lines=lines: lines)
        environment.machine_digest.cache_clear()
        found.add(environment.machine_digest())
    environment.machine_digest.cache_clear()
    assert len(found) == 2


def test_a_variant_that_fails_on_one_seed_has_failed_whatever_the_others_are(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.run.infinite.warnings", lambda setting, plans: ())  # of rows made up here
    table = Tables(planned(tmp_path, SUITE + "seeds: [0, 1, 2]\n"), {})
    states = {"failed": ("failed", "it broke"), "inapplicable": ("not_applicable", "other shapes"), "ok": ("ok", "")}
    kept = {"variant": "linear", "family": "", "method": "", "pool": "", "reference": "", "params": "", "members": 1}
    for order in (("failed", "inapplicable", "ok"), ("inapplicable", "failed", "ok"), ("ok", "inapplicable", "failed")):
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
    rows = Tables(plan, {}).rows()  # what another suite has measured is nothing to this one
    assert not any(row.get("energy_j_per_example") for row in rows)
    assert {row["energy_source"] for row in rows} == {"unavailable: the suite does not ask for it"}
    energy.why_unavailable.cache_clear()


# a cost of a plug-in

PLUGGED = SUITE + "cost: {latency: true, memory: true, energy: false, page_faults: true}\n"


def test_a_cost_of_a_plug_in_is_measured_beside_ours_and_shown(tmp_path, page_faults, monkeypatch):
    monkeypatch.setattr(local, "_Pools", Inline)  # worker processes have not installed it
    plan = planned(tmp_path, PLUGGED)
    runner.run(plan, Tracker())
    rows = Tables(plan, {}).rows()
    assert all(row["minor_page_faults"] > 0 and row["latency_ms_p50"] > 0 for row in rows)
    missing = planned(tmp_path, PLUGGED.replace("page_faults: true", "page_faults: false"))
    assert not missing.missing()
    assert not any("minor_page_faults" in row for row in Tables(missing, {}).rows())


def test_a_cost_that_breaks_takes_no_other_with_it_and_is_measured_again(tmp_path, page_faults, monkeypatch):
    def breaks(bench):
        raise ZeroDivisionError("no pages")

    monkeypatch.setattr(local, "_Pools", Inline)
    monkeypatch.setitem(COSTS._known, "page_faults", replace(page_faults, measure=breaks, seconds=0.01))
    found = read_run(runner.run(planned(tmp_path, PLUGGED), Tracker()))
    assert found.variants["latency_ms_p50"].notna().all()
    assert set(found.variants["status"]) == {"ok"}
    assert "page_faults: ZeroDivisionError: no pages" in (found.folder / "log.jsonl").read_text()
    monkeypatch.setitem(COSTS._known, "page_faults", page_faults)
    again = planned(tmp_path, PLUGGED)
    assert [job.job.name for job in again.missing()] == [f"seed 0: measure {name}" for name in again.variants[0]]


def test_keys_go_by_the_machine_of_the_driver_wherever_they_are_made(tmp_path, monkeypatch):
    plan = planned(tmp_path)
    before = [key for each in plan.jobs for key in each.stage.artefacts()]
    monkeypatch.setattr(environment, "machine_digest", lambda: "that of a worker far away")
    assert [key for each in planned_jobs(plan) for key in each.stage.artefacts()] == before
    assert plan.setting.machine != environment.machine_digest()


def test_what_is_one_network_is_measured_once_and_what_is_another_or_several_apart(tmp_path):
    merges = ["uniform_soup", "greedy_soup", {"slerp": {"members": [0, 1]}}, {"distill": {"epochs": 1, "size": "half"}}]
    plan = planned(tmp_path, SUITE.replace("[best_single, linear]", f"[best_single, linear, {str(merges)[1:-1]}]"))
    found = read_run(runner.run(plan, Tracker()))
    assert not planned(tmp_path, (tmp_path / "suite.yaml").read_text()).missing()
    keys = {name: {cost: stage_of(cost, plan, name).key(cost).digest for cost in ("latency", "memory")}
            for name in plan.variants[0]}  # fmt: skip
    soup, *others = (keys[name] for name in ("uniform_soup", "greedy_soup", "slerp/members=0+1"))
    assert all(other == soup for other in others)
    apart = [keys[name]["latency"] for name in ("uniform_soup", "best_single", "linear", "distill/epochs=1,size=half")]
    assert len(set(apart)) == 4
    rows = found.variants.query("seed == 'all'").set_index("variant")
    figures = rows[["latency_ms_p50", "latency_ratio_p50", "working_memory_bytes"]]
    assert figures.loc["uniform_soup"].tolist() == figures.loc["slerp/members=0+1"].tolist()
    assert figures.notna().all(axis=None)
