"""A variant exported as an adapter: other pools and PEFT load it, and its card says how far it is from the variant."""

import json

import pandas as pd
import peft
import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification

from harness.errors import BadInput
from harness.publish.candidate import score_candidate
from harness.publish.export import export
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.suite.suite import read_suite
from tests.cli.command import call
from tests.models.test_adapter_base import lora, put
from tests.models.tiny_classifiers import WORDS, classifier

pytestmark = pytest.mark.usefixtures("in_this_process")

LABELS = ("ham", "spam", "eggs")
SUITE = """
suite: mails
task: {texts: {train: train.csv, heldout: heldout.csv, test: test.csv}}
pool: {hf: {base: base, members: [one, two]}}
reference: member/index=0
methods: [member: {index: [0, 1]}, linear, uniform_soup, task_arithmetic: {scale: 0.0}]
cost: {latency: false, memory: false}
"""


def run_of(folder, text, **options):
    (folder / "suite.yaml").write_text(text)
    plan = make_plan(read_suite(folder / "suite.yaml"), Options(folder / "results", workers=1, **options))
    return read_run(runner.run(plan, Tracker()))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two adapters on a classifier whose labels are in another order than the task's, which is that of the alphabet."""
    folder = tmp_path_factory.mktemp("mails")
    base = classifier("bert", folder / "base", LABELS)
    for seed, name in enumerate(("one", "two")):
        put(folder / name, base, "bert", lora("bert", r=seed + 2), seed=seed)
    generator = torch.Generator().manual_seed(0)
    for name, count in (("train", 12), ("heldout", 12), ("test", 24)):
        drawn = torch.randint(2, len(WORDS), (count, 6), generator=generator).tolist()
        rows = [(" ".join(WORDS[word] for word in words), LABELS[row % 3]) for row, words in enumerate(drawn)]
        pd.DataFrame(rows, columns=["text", "label"]).to_csv(folder / f"{name}.csv", index=False)
    return run_of(folder, SUITE)


def place(run):
    return run.folder.parents[2]


def predictions(run, variant):
    return run.examples[run.examples["variant"] == variant]["prediction"].tolist()


def test_the_adapter_scores_as_the_variant_where_its_rank_suffices(run, tmp_path):
    said = []
    folder = export(run, "uniform_soup", tmp_path / "out", adapter_rank=5, say=said.append)
    (line,) = said
    assert line.startswith("adapter of rank 5: 4 weights as factors of rank 5; 1 other saved whole (classifier); ")
    candidate = read_run(score_candidate(read_suite(place(run) / "suite.yaml"), folder,
                                         Options(place(run) / "results", workers=1), Tracker()))  # fmt: skip
    assert predictions(candidate, "candidate") == predictions(run, "uniform_soup")
    nll = [each[each["variant"] == name]["nll"].to_numpy() for each, name in
           ((candidate.examples, "candidate"), (run.examples, "uniform_soup"))]  # fmt: skip
    assert nll[0] == pytest.approx(nll[1], abs=1e-5)


def test_its_card_says_what_it_is_and_how_far_it_is_from_the_variant(run, tmp_path):
    said = []
    folder = export(run, "uniform_soup", tmp_path / "out", adapter_rank=1, say=said.append)
    _, head, body = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "peft"
    for fact in said[0].removeprefix("adapter of rank 1: ").split("; "):
        assert fact.replace("_", "\\_") in body
    assert "the scores are those of the variant, not of the adapter" in body
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "adapter_config.json",
                                                              "adapter_model.safetensors"]  # fmt: skip
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["task_type"]) == (1, "SEQ_CLS")


def test_peft_loads_it_on_the_base_by_its_own_class(run, tmp_path):
    folder = export(run, "member/index=1", tmp_path / "out", adapter_rank=3)
    theirs, ours = (
        peft.PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(place(run) / "base"), each)
        .merge_and_unload().state_dict() for each in (place(run) / "two", folder)
    )  # fmt: skip
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("variant", "options", "words"),
    [
        ("linear", {"adapter_rank": 2}, "an output rule over 2 models, which no folder of weights can hold; export a"),
        ("uniform_soup", {"adapter_rank": 0}, "--adapter-rank is 0; an adapter's factors have a rank of at least 1"),
        ("uniform_soup", {"adapter_rank": 2, "dtype": "float16"}, "--dtype is for whole models"),
        ("task_arithmetic/scale=0", {"adapter_rank": 2}, "the model is its base; export the whole model"),
    ],
)
def test_what_cannot_be_an_adapter_is_refused_and_nothing_is_left(run, tmp_path, variant, options, words):
    with pytest.raises(BadInput, match=words) as caught:
        export(run, variant, tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_pool_without_a_base_has_no_adapters(run, tmp_path):
    for name in ("train.csv", "heldout.csv", "test.csv"):
        (tmp_path / name).write_bytes((place(run) / name).read_bytes())
    for seed, name in enumerate(("one", "two")):
        classifier("bert", tmp_path / name, LABELS, seed)
    alone = run_of(tmp_path, SUITE.replace("base: base, ", "").replace(", task_arithmetic: {scale: 0.0}", ""))
    with pytest.raises(BadInput, match="whose base is a Hugging Face folder; a suite names it under hf: base"):
        export(alone, "uniform_soup", tmp_path / "out", adapter_rank=2)


def test_the_command_says_the_error_apart_from_the_folder(run, tmp_path, capsys):
    capsys.readouterr()
    code, out, err = call(capsys, "export", run.folder, "uniform_soup", tmp_path / "out", "--adapter-rank", 2)
    assert (code, out.strip()) == (0, str(tmp_path / "out"))
    assert "adapter of rank 2: 4 weights as factors of rank 2; 1 other saved whole (classifier)" in err
    code, out, err = call(capsys, "export", run.folder, "uniform_soup", tmp_path / "none", "--adapter-rank", 0)
    assert (code, out, len(err.strip().splitlines())) == (2, "", 1)
