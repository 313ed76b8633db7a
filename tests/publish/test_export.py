"""Exported models: read back they predict the same, and what is no single model is refused with the reason."""

import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from harness.errors import BadInput
from harness.models.weights import module_with, save_network
from harness.pools.folder_model import FolderModel
from harness.publish import export as exporting
from harness.publish.export import export
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.suite.suite import read_suite

pytestmark = pytest.mark.usefixtures("in_this_process")

SUITE = """
suite: tiny
task: digits
pool:
  train: {architecture: mlp, start: shared_base, base_epochs: 2, members: 2, epochs: 1, options: {hidden: 8}}
seeds: [0, 1]
methods:
  - best_single
  - linear
  - uniform_soup
  - temperature: {of: best_single}
  - mc_dropout: {passes: 1}
  - checkpoint_average
cost: {latency: false, memory: false}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    (folder / "suite.yaml").write_text(SUITE)
    suite = read_suite(folder / "suite.yaml")
    return read_run(runner.run(make_plan(suite, Options(folder / "results", workers=2)), Tracker()))


def predictions(run, folder):
    """Labels that the exported network gives the test examples."""
    suite = read_suite(run.folder.parents[2] / "suite.yaml")
    inputs = make_plan(suite, Options(run.folder.parents[1])).task.test.inputs
    network = module_with(FolderModel(str(folder)).architecture, load_file(folder / "model.safetensors"))
    with torch.inference_mode():
        return network(inputs).argmax(dim=1).tolist()


@pytest.mark.parametrize(("variant", "seed"), [("uniform_soup", None), ("uniform_soup", 1), ("best_single", 0)])
def test_the_folder_predicts_what_the_run_says(run, tmp_path, variant, seed):
    folder = export(run, variant, tmp_path / "out", seed)
    FolderModel(str(folder)).check()
    rows = run.examples[(run.examples["variant"] == variant) & (run.examples["seed"] == (seed or 0))]
    assert predictions(run, folder) == rows["prediction"].tolist()


def test_the_card_says_what_it_is_and_holds_the_scores(run, tmp_path):
    card = (export(run, "uniform_soup", tmp_path / "out") / "README.md").read_text()
    _, head, body = card.split("---\n", 2)
    (result,) = yaml.safe_load(head)["model-index"][0]["results"]
    rows = run.variants[run.variants["seed"] == "all"].set_index("variant")
    scores = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert scores["accuracy"] == pytest.approx(rows.loc["uniform_soup", "accuracy"])
    assert "`uniform_soup`" in body
    assert run.record["run_id"] in body


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("linear", "an output rule over 2 models"),
        ("temperature/of=best_single", "a model and an output rule"),
        ("mc_dropout/passes=1", "a model and an output rule"),
        ("checkpoint_average", "not applicable"),
        ("uniform_soop", "did you mean 'uniform_soup'"),
    ],
)
def test_what_is_no_single_model_is_refused(run, tmp_path, variant, words):
    with pytest.raises(BadInput, match=words):
        export(run, variant, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_left_alone(run, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInput, match="something already"):
        export(run, "uniform_soup", tmp_path)
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert (export(run, "uniform_soup", tmp_path / "empty") / "model.safetensors").is_file()


def test_a_seed_that_the_run_lacks_is_refused(run, tmp_path):
    with pytest.raises(BadInput, match="no seed 5"):
        export(run, "uniform_soup", tmp_path / "out", 5)


def test_a_run_without_its_store_says_so(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "results/tiny/copy")
    with pytest.raises(BadInput, match="run the suite again"):
        export(read_run(folder), "uniform_soup", tmp_path / "out")


def test_a_suite_that_was_changed_since_is_refused(run, tmp_path):
    path = run.folder.parents[2] / "suite.yaml"
    path.write_text(SUITE.replace("epochs: 1", "epochs: 2"))
    try:
        with pytest.raises(BadInput, match="changed since the run"):
            export(run, "uniform_soup", tmp_path / "out")
    finally:
        path.write_text(SUITE)


def test_exported_networks_are_members_of_a_pool_of_folders(run, tmp_path):
    for seed in (0, 1):
        export(run, "uniform_soup", tmp_path / f"soup-{seed}", seed)
    text = SUITE[: SUITE.index("pool:")] + "pool: {hf: {members: [soup-0, soup-1]}}\n"
    (tmp_path / "suite.yaml").write_text(text + "methods: [{member: {index: 1}}, linear]\nreference: linear\n"
                                         "cost: {latency: false, memory: false}\n")  # fmt: skip
    suite = read_suite(tmp_path / "suite.yaml")
    found = read_run(runner.run(make_plan(suite, Options(tmp_path / "results", workers=2)), Tracker()))
    theirs = run.examples[(run.examples["variant"] == "uniform_soup") & (run.examples["seed"] == 1)]
    ours = found.examples[found.examples["variant"] == "member/index=1"]
    assert ours["prediction"].tolist() == theirs["prediction"].tolist()
    assert set(found.variants["status"]) == {"ok"}


def test_a_folder_that_would_predict_otherwise_is_never_left(run, tmp_path, monkeypatch):
    def careless(architecture, module, folder):
        with torch.no_grad():
            module.layers[1].bias += 1
            save_network(architecture, module, folder)
            module.layers[1].bias -= 1

    monkeypatch.setattr("harness.publish.export.save_network", careless)
    with pytest.raises(BadInput, match="cannot be written down"):
        export(run, "uniform_soup", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("apart", "changed", "same"), [(0.0, False, True), (2e-7, False, True), (1e-3, False, False),
                                                        (2e-7, True, False)])  # fmt: skip
def test_a_model_is_read_back_where_all_weights_are_and_only_the_rounding_of_a_layout_differs(
    monkeypatch, apart, changed, same
):
    """Kernels round by the layout of weights on some processors; a weight that is off by its last bit is another's."""
    written, read = nn.Linear(3, 2), nn.Linear(3, 2)
    read.load_state_dict(written.state_dict())
    if changed:
        with torch.no_grad():
            read.bias[0] = torch.nextafter(read.bias[0], torch.tensor(9.0))
    said = {written: torch.zeros(4, 2), read: torch.full((4, 2), apart)}
    monkeypatch.setattr(exporting.forward, "log_probs", lambda module, inputs: said[module])
    assert exporting._same(read, written, torch.zeros(4, 3)) == same
