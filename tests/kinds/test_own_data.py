"""A user's own texts and images go through all of a run: the examples of README, with tiny models in their places."""

import pandas as pd
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from harness.engines import local
from harness.report import write_report
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.run.stages import setting, variant
from harness.suite.suite import read_suite
from tests.cli.command import call
from tests.inline import Inline
from tests.tasks.picture_files import write_classes

TEXTS = """suite: reviews
question: Which of two readers of reviews, or both together?
task:
  texts:
    train: reviews.csv   # or .tsv, .jsonl, .parquet, .arrow, or a folder that datasets saved
    heldout: 0.2         # a share of train, or a file
    test: 0.2
    text: review         # two columns, [premise, hypothesis], make a pair
    label: stars
    cluster: user        # of one user, all rows are on one side
pool: {hf: {members: [reader_a, reader_b]}}
methods: [best_single, linear]
"""
IMAGES = """suite: pets
question: Does it pay to ask two networks?
task:
  images:
    train: pictures/train       # cat/1.png, dog/2.png: a folder for each class
    heldout: pictures/val
    test: pictures/test
pool: {hf: {members: [vit_a, vit_b]}}
methods: [best_single, linear]
"""
NO_COSTS = "cost: {latency: false, memory: false, energy: false}\n"
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
STARS = ("1", "2", "3")
PETS = ("cat", "dog")


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch):
    monkeypatch.setattr(local, "_Pools", Inline)
    yield
    for cached in (setting.task_of, setting.documents_of, variant.pool_of):
        cached.cache_clear()


def named(config, labels):
    config.id2label, config.label2id = dict(enumerate(labels)), {name: k for k, name in enumerate(labels)}
    return config


@pytest.fixture
def reviews(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "##s"]
    for seed, name in enumerate(("reader_a", "reader_b")):
        torch.manual_seed(seed)
        config = named(BertConfig(vocab_size=len(words), max_position_embeddings=32, **SMALL), STARS)
        BertForSequenceClassification(config).save_pretrained(tmp_path / name)
        BertTokenizer(vocab={word: k for k, word in enumerate(words)}).save_pretrained(tmp_path / name)
    rows = [(f"{'good' if i % 3 else 'bad'} film {i}", 1 + i % 3, f"u{i // 2}") for i in range(90)]
    pd.DataFrame(rows, columns=["review", "stars", "user"]).to_csv(tmp_path / "reviews.csv", index=False)
    (tmp_path / "suite.yaml").write_text(TEXTS + NO_COSTS)
    return tmp_path


@pytest.fixture
def pets(tmp_path):
    for seed, name in enumerate(("vit_a", "vit_b")):
        torch.manual_seed(seed)
        config = named(ViTConfig(image_size=16, patch_size=8, **SMALL), PETS)
        ViTForImageClassification(config).save_pretrained(tmp_path / name)
        ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / name)
    for start, name in enumerate(("train", "val", "test")):
        write_classes(tmp_path / "pictures" / name, PETS, count=10, start=1000 * start)
    (tmp_path / "suite.yaml").write_text(IMAGES + NO_COSTS)
    return tmp_path


def examples_of(found):
    """What every variant said of every test example."""
    return pd.read_parquet(found.folder / "examples.parquet")


def run(folder):
    plan = make_plan(read_suite(folder / "suite.yaml"), Options(out=folder / "results", device="cpu"))
    return read_run(runner.run(plan, Tracker()))


def test_own_texts_are_split_scored_and_reported(reviews, capsys):
    found = run(reviews)
    assert set(found.variants["status"]) == {"ok"}, found.variants["reason"].tolist()
    splits = found.record["task"]["splits"]
    assert splits == {"train": 54, "heldout": 18, "test": 18}
    report = write_report(found.folder).with_name("report.md").read_text()
    assert "texts of reviews.csv, from the user's own files; 54 inputs to train, 18 held out, 18" in report
    code, out, _ = call(capsys, "plan", reviews / "suite.yaml", "--out", reviews / "results")
    assert code == 0
    assert "data: texts of reviews.csv\n  train 54: 1 18, 2 18, 3 18\n" in out
    assert examples_of(found)["cluster"].nunique() == 9


def test_own_images_are_scored_and_notes_are_said(pets):
    (pets / "pictures/test/cat/0.png").write_bytes((pets / "pictures/train/cat/0.png").read_bytes())
    found = run(pets)
    assert set(found.variants["status"]) == {"ok"}, found.variants["reason"].tolist()
    assert "1 of 20 test examples are training examples too, byte for byte" in found.record["warnings"]
    assert "test/cat/0.png" in set(examples_of(found)["example_id"])


@pytest.mark.parametrize("cluster", [True, False])
def test_every_seed_may_have_a_split_of_its_own(reviews, cluster):
    text = TEXTS if cluster else TEXTS.replace("    cluster: user", "    #")
    (reviews / "suite.yaml").write_text(text + NO_COSTS + "split: per_seed\nseeds: [0, 1, 2]\n")
    found = run(reviews)
    assert set(found.variants["status"]) == {"ok"}, found.variants["reason"].tolist()
    assert found.record["task"]["splits"] == {"train": 54, "heldout": 18, "test": 18}
    examples = examples_of(found)
    assert examples["example_id"].nunique() == len(examples) / 2 == 54  # two variants, and no example on two folds
