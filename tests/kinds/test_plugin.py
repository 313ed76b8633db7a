"""A kind of task that a plug-in declares goes through all of a run like those that come with Stockpot."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch

from harness.cli.main import main
from harness.engines import local
from harness.errors import BadInput
from harness.kinds.kind import kind, load_task
from harness.publish.export import export
from harness.registry import KINDS
from harness.report import write_report
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.run.stages import setting, variant
from harness.store import Store
from harness.suite.suite import read_suite
from tests.inline import Inline
from tests.kinds.numbers import Numbers

SUITE = """suite: table
task: {numbers: data.csv, label: kind}
pool:
  train: {architecture: perceptron, start: shared_base, base_epochs: 8, members: 3, epochs: 12, vary: {lr: [.02, .03]}}
methods:
  - best_single
  - linear: {weights: [uniform, learned]}
  - majority_vote
  - mc_dropout: {passes: 2}
  - uniform_soup
  - greedy_soup
  - learned_soup: {epochs: 1}
  - task_arithmetic
  - fisher
  - regmean
  - distill: {epochs: 24, lr: 0.02}
  - distill: {epochs: 1, size: half}
correlate: {subsets: {sizes: [2, 3], at_most: 4}}
cost: {energy: false}
"""


@pytest.fixture(scope="module", autouse=True)
def declared():
    with pytest.MonkeyPatch.context() as patch:
        KINDS.all()
        patch.setitem(KINDS._known, "numbers", Numbers())
        patch.setattr(local, "_Pools", Inline)
        yield
    for cached in (setting.task_of, setting.documents_of, variant.pool_of):
        cached.cache_clear()


def table_in(folder):
    """Three clouds of points, well apart."""
    labels = torch.arange(400) % 3
    centres = torch.tensor([[3.0, 0, 0], [0, 3, 0], [0, 0, 3]])
    points = centres[labels] + torch.randn(400, 3, generator=torch.Generator().manual_seed(1))
    pd.DataFrame(points.numpy(), columns=list("abc")).assign(kind=labels).to_csv(folder / "data.csv", index=False)


def read(folder, text=SUITE):
    (folder / "suite.yaml").write_text(text)
    return read_suite(folder / "suite.yaml")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbers")
    table_in(folder)
    plan = make_plan(read(folder), Options(out=folder / "results", device="cpu"))
    return read_run(runner.run(plan, Tracker()))


def test_its_suites_run_from_members_to_costs(found):
    table = found.variants.set_index(["variant", "seed"]).xs("all", level="seed")
    assert set(table["status"]) == {"ok"}, table["reason"].dropna().tolist()
    assert (table["accuracy"].drop("distill/epochs=1,size=half") > 0.8).all()
    counted = ["params_stored", "params_active", "flops_per_example", "latency_ms_p50", "working_memory_bytes"]
    assert table[counted].notna().all(axis=None)
    assert table.loc["linear", "flops_per_example"] == pytest.approx(3 * table.loc["best_single", "flops_per_example"])
    assert table["predicted_memory_bytes"].notna().any()
    assert found.record["task"]["splits"] == {"train": 200, "heldout": 100, "test": 100}
    assert pd.read_csv(found.folder / "correlation.csv")["subset"].nunique() == 4


def test_its_runs_are_reported_and_gated(found, tmp_path, capsys):
    report = write_report(found.folder).with_name("report.md").read_text()
    assert "uniform_soup" in report
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nrules:\n- {id: r, match: {variant: linear, metric: accuracy}, min: 0.5}\n")
    with pytest.raises(SystemExit) as stopped:
        main(["gate", str(found.folder), "--policy", str(policy)])
    assert stopped.value.code == 0, capsys.readouterr()


def test_its_networks_are_exported_and_read_back_as_members(found, tmp_path):
    for name in ("uniform_soup", "distill/epochs=24,lr=0.02"):
        export(found, name, tmp_path / name.split("/")[0])
    table_in(tmp_path)
    text = SUITE[: SUITE.index("pool:")] + "pool: {hf: {members: [uniform_soup, distill]}}\nmethods: [best_single, "
    text += "{member: {index: [0, 1]}}, linear]\ncost: {latency: false, memory: false, energy: false}\n"
    plan = make_plan(read(tmp_path, text), Options(out=tmp_path / "results", device="cpu"))
    again = read_run(runner.run(plan, Tracker())).variants.set_index("variant")
    before = found.variants.set_index("variant")
    assert set(again["status"]) == {"ok"}
    assert again.loc["member/index=0", "accuracy"].iloc[0] == before.loc["uniform_soup", "accuracy"].iloc[0]
    images = text.replace("{numbers: data.csv, label: kind}", "digits")
    with pytest.raises(BadInput, match="holds a network for numbers, which the task 'digits' is not for"):
        make_plan(read(tmp_path, images), Options(out=tmp_path / "results", device="cpu"))


def test_a_table_of_another_shape_is_not_for_a_network(found, tmp_path):
    export(found, "uniform_soup", tmp_path / "soup")
    (tmp_path / "data.csv").write_text("a,b,kind\n" + "1,2,0\n2,3,1\n" * 20)
    text = SUITE[: SUITE.index("pool:")] + "pool: {hf: {members: [soup]}}\nmethods: [best_single]\n"
    with pytest.raises(BadInput, match="the network has features 3, classes 3; the task 'table' has features 2, class"):
        make_plan(read(tmp_path, text), Options(out=tmp_path / "results", device="cpu"))


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("{nubmers: data.csv}", ":2: unknown key 'nubmers'; did you mean 'numbers'? (known: KEYS)"),
        ("{numbers: data.csv, lable: kind}", ":2: unknown key 'lable'; did you mean 'label'? (known: label, numbers)"),
        ("{numbers: 3}", ":2: bad value 3 for 'numbers'; it should be a valid string"),
        ("{numbers: data.csv, lm_eval: [q]}", ":2: unknown key 'lm_eval'"),
        ("{}", ":2: 'task' is empty (known: KEYS)"),
        ("3", ":2: bad value 3 for 'task'"),
    ],
)
def test_what_a_suite_says_of_it_is_checked_with_place_and_choices(tmp_path, task, words):
    with pytest.raises(BadInput) as caught:
        read(tmp_path, SUITE.replace("{numbers: data.csv, label: kind}", task))
    keys = ", ".join(sorted(kind.key for kind in KINDS if kind.key))
    assert f"suite.yaml{words.replace('KEYS', keys)}" in str(caught.value)


def test_a_suite_that_says_a_default_is_the_same_suite(tmp_path):
    texts = [SUITE.replace(", label: kind", label) for label in ("", ", label: label", ", label: other")]
    plain, default, other = (read(tmp_path, text).digest for text in texts)
    assert plain == default != other


def test_schema_and_lists_show_it(capsys):
    for arguments, words in ((["schema"], '"numbers"'), (["ls", "tasks"], "{numbers: …}  A CSV file of numbers")):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert not stopped.value.code
        printed = capsys.readouterr().out
        assert words in printed
    with pytest.raises(SystemExit):
        main(["schema"])
    schema = json.loads(capsys.readouterr().out)
    assert "perceptron" in schema["$defs"]["TrainPool"]["properties"]["architecture"]["examples"]
    ours = [each for each in schema["properties"]["task"]["anyOf"] if "numbers" in each.get("properties", {})]
    assert ["label" in each["properties"] for each in ours] == [True]


def test_architectures_of_other_kinds_are_not_for_it(tmp_path):
    table_in(tmp_path)
    suite = read(tmp_path, SUITE.replace("architecture: perceptron", "architecture: mlp"))
    with pytest.raises(BadInput, match=r"architecture 'mlp' is not for numbers \(known: perceptron\)"):
        make_plan(suite, Options(out=tmp_path / "results", device="cpu"))


def test_two_kinds_cannot_declare_one_network_or_key(monkeypatch):
    class Other(Numbers):
        name = "others"

    with pytest.raises(ValueError, match="the network 'perceptron' is declared by the kinds 'numbers', 'others'"):
        kind(Other())
    monkeypatch.setattr(Other, "networks", {})
    with pytest.raises(ValueError, match="the key 'numbers' is declared by"):
        kind(Other())
    assert "others" not in KINDS.all()


def test_a_split_that_does_not_name_its_kind_is_refused(tmp_path, monkeypatch):
    """Its networks would be run, and its artefacts be named, as if they were of no kind."""
    table_in(tmp_path)
    reference = read(tmp_path).task
    assert load_task(reference, Store(tmp_path)).train.kind == "numbers"
    monkeypatch.setattr(Numbers, "load", lambda self, *given, load=Numbers.load: unnamed(load(self, *given)))
    with pytest.raises(ValueError, match="the split 'heldout' does not name its kind, 'numbers'"):
        load_task(reference, Store(tmp_path))


def unnamed(task):
    return replace(task, heldout=replace(task.heldout, kind=""))
