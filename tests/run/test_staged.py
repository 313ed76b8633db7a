"""Whole runs with a staged method: its parameters and FLOPs are means over the calls, counted by hand."""

import json

import numpy as np
import pytest
import torch

from harness.cost import latency
from harness.engines import local
from harness.errors import BadInput
from harness.methods.method import method
from harness.publish.export import export
from harness.registry import METHODS
from harness.results.evidence import read_tables
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.run.stages import setting, variant
from harness.suite.suite import read_suite
from harness.systems import systems
from harness.systems.acceptance import Confidence
from harness.systems.fitting import uniform
from harness.systems.rules import Linear
from harness.systems.staged import Staged
from harness.systems.systems import OutputCombination, member_parts
from harness.tasks import text
from harness.types import Combination
from tests.inline import Inline
from tests.lm.test_stages import write_tasks
from tests.run.test_keys import text_model

IMAGES = """
suite: staged
task: digits
pool:
  train: {architecture: mlp, start: shared_base, base_epochs: 20, members: 3, epochs: 10, options: {hidden: 8}}
reference: member/index=0
methods: [member: {index: 0}, linear, two_stages: {threshold: [0.0, 0.2, 1.1]}, of_no_known_kind]
cost: {energy: false}
"""
TEXT = """
suite: staged_text
task: {lm_eval: [q], include_path: tasks}
pool: {hf: {members: [a, b, c]}}
reference: member/index=0
methods: [member: {index: 0}, linear, two_stages: {threshold: [0.0, HALF, 1.1]}, of_no_known_kind]
cost: {latency: true, memory: true, energy: false}
"""


def two_stages(ingredients, *, threshold: float) -> Staged:
    """The first member; all of them where it is not confident."""
    first, *_ = parts = member_parts(ingredients)
    stages = [OutputCombination([first], Linear(uniform(1))), OutputCombination(parts, Linear(uniform(len(parts))))]
    return Staged(stages, [Confidence(threshold)], {"threshold": threshold})


class Unknown(Combination):
    """Of several parts, and none of the kinds that language models' tasks can be put to."""

    def __init__(self, of):
        self.of, self.details = of, {}

    def log_probs(self, batch):
        return self.of.log_probs(batch)

    def parts(self):
        return self.of.parts()

    def save(self, folder):
        self.of.save(folder)
        (folder / "unknown.json").write_text("{}")


def of_no_known_kind(ingredients) -> Unknown:
    parts = member_parts(ingredients)
    return Unknown(OutputCombination(parts, Linear(uniform(len(parts)))))


def load_unknown(folder, pool, device, shared):
    return Unknown(systems.LOADERS["rule.json"](folder, pool, device, shared))


@pytest.fixture(autouse=True)
def staged_methods(monkeypatch):
    monkeypatch.setattr(local, "_Pools", Inline)
    monkeypatch.setattr(text, "WINDOWS", {"train": 12, "heldout": 3, "test": 2})
    monkeypatch.setattr(METHODS, "_known", METHODS.all())
    monkeypatch.setattr(systems, "LOADERS", {**systems.LOADERS, "unknown.json": load_unknown})
    declared = {"paper": "-", "needs": {"members"}, "order_sensitive": True}
    method("of_no_known_kind", family="output", summary="Unknown.", **declared)(of_no_known_kind)
    method("two_stages", family="staged", summary="Two.", **declared)(two_stages)
    yield
    for cached in (setting.task_of, setting.documents_of, variant.pool_of):
        cached.cache_clear()


def run(path, out):
    plan = make_plan(read_suite(path), Options(out=out, device="cpu"))
    return read_run(runner.run(plan, Tracker()))


def rows(found):
    return found.variants[found.variants["seed"] == "all"].set_index("variant")


def of(found, variant, column):
    table = found.examples[found.examples["variant"] == variant]
    return table[column].to_numpy()


def assert_counted_by_hand(found, threshold, members, parameters, flops, confidence):
    """Of examples whose confidence under the first member has the threshold one model runs, of the others all."""
    name = f"two_stages/threshold={threshold:g}"
    row, calls = rows(found).loc[name], np.where(confidence >= threshold, 1, members)
    assert row["status"] == "ok", row["reason"]
    assert of(found, name, "calls").tolist() == calls.tolist()
    assert row["params_stored"] == members * parameters
    assert row["params_active"] == pytest.approx(calls.mean() * parameters)
    assert row["flops_per_example"] == pytest.approx(calls.mean() * flops)
    stages = found.details[name]["0"]["stages"]
    assert [each["share"] for each in stages] == pytest.approx([np.mean(calls == 1), np.mean(calls == members)])
    return row


def test_on_images_costs_are_means_over_the_calls(tmp_path):
    (tmp_path / "suite.yaml").write_text(IMAGES)
    found = run(tmp_path / "suite.yaml", tmp_path / "results")
    table = rows(found)
    assert not table["reason"].notna().any(), table["reason"].dropna().tolist()
    parameters, flops = (64 * 8 + 8) + (8 * 8 + 8) + (8 * 10 + 10), 2 * (64 * 8 + 8 * 8 + 8 * 10)
    confidence = of(found, "member/index=0", "confidence")
    assert 0.1 < (confidence >= 0.2).mean() < 0.9
    for threshold in (0.0, 0.2, 1.1):
        row = assert_counted_by_hand(found, threshold, 3, parameters, flops, confidence)
        assert row["latency_ratio_p50"] > 0
        assert row["peak_memory_bytes"] > 0
        assert np.isnan(row["predicted_memory_bytes"])
    answered = np.where(confidence >= 0.2, of(found, "member/index=0", "nll"), of(found, "linear", "nll"))
    assert of(found, "two_stages/threshold=0.2", "nll") == pytest.approx(answered, abs=1e-6)
    for same, other in (("member/index=0", "0"), ("linear", "1.1")):
        columns = ["accuracy", "nll", "params_active", "flops_per_example"]
        assert table.loc[f"two_stages/threshold={other}", columns].tolist() == table.loc[same, columns].tolist()
    assert of(found, "linear", "calls").tolist() == [3] * len(confidence)
    assert table.loc["of_no_known_kind", "nll"] == pytest.approx(table.loc["linear", "nll"])  # it is run as it is
    read_tables(found.folder)
    with pytest.raises(BadInput, match="a Staged system of 3 models, which no folder of weights can hold"):
        export(found, "two_stages/threshold=0.2", tmp_path / "out")


def test_on_choices_costs_are_means_over_the_calls_and_what_is_unknown_is_refused(tmp_path):
    for seed, name in enumerate("abc"):
        text_model(tmp_path / name, seed)
    (tmp_path / "tasks").mkdir()
    write_tasks(tmp_path / "tasks")
    (tmp_path / "first.yaml").write_text(TEXT.replace("HALF", "0.5"))
    first = run(tmp_path / "first.yaml", tmp_path / "results")
    confidence = of(first, "member/index=0", "confidence")
    ordered = np.unique(confidence)
    half = round(float(ordered[5] + ordered[6]) / 2, 4)
    (tmp_path / "suite.yaml").write_text(TEXT.replace("HALF", str(half)))
    found = run(tmp_path / "suite.yaml", tmp_path / "results")
    table = rows(found)
    assert 0.1 < (confidence >= half).mean() < 0.9
    one = table.loc["member/index=0"]
    for threshold in (0.0, half, 1.1):
        row = assert_counted_by_hand(found, threshold, 3, one["params_stored"], one["flops_per_example"], confidence)
        assert "windows of text have none" in row["memory_source"]
        assert np.isnan(row["latency_ratio_p50"])
    for column in ("nll", "correct"):
        said = np.where(confidence >= half, of(found, "member/index=0", column), of(found, "linear", column))
        assert of(found, f"two_stages/threshold={half:g}", column) == pytest.approx(said, abs=1e-5)
    refused = table.loc["of_no_known_kind"]
    assert refused["status"] == "failed"
    assert "of the class Unknown" in refused["reason"]
    assert np.isnan(refused["accuracy"])
    log = [json.loads(line) for line in (found.folder / "log.jsonl").read_text().splitlines()]
    scored = {event["job"] for event in log if event["event"] == "start" and "in one pass" in event["job"]}
    assert scored == {"seed 0: score rules of main in one pass"}  # stages are scored in the pass of the rules


def test_one_example_alone_stands_for_the_mix_of_calls():
    """A system whose answer to an example takes one call or all is timed on examples in the batch's proportion."""

    class Varying(Unknown):
        def run(self, batch):
            calls = torch.ones(len(batch), 2, dtype=torch.int64)
            calls[:, 1] = (batch[:, 0] < 0.25).long()
            return batch, calls

        def parts(self):
            return ()

    batch = torch.rand(200, 1, generator=torch.Generator().manual_seed(0))
    for pair in ((Varying, Unknown), (Unknown, Varying)):
        loads = [lambda kind=kind: kind(None) for kind in pair]
        chosen = torch.cat(latency._alone(*loads, batch))
        assert len(chosen) == latency.EXAMPLES_ALONE
        share = float((batch[:, 0] < 0.25).double().mean())
        assert float((chosen[:, 0] < 0.25).double().mean()) == pytest.approx(share, abs=1 / latency.EXAMPLES_ALONE)
    plain = latency._alone(lambda: Unknown(None), lambda: Unknown(None), batch)
    assert [each.tolist() for each in plain] == [batch[:1].tolist()]
