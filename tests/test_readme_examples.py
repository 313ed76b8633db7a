"""Every suite of the README's "Your own models" runs as it stands, with tiny models in the places of the user's."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from harness.engines import local
from harness.run.stages import setting, variant
from tests.cli.command import call
from tests.inline import Inline
from tests.models.classifier_folders import save
from tests.readme import shown
from tests.recipes.families import write_models
from tests.tasks.picture_files import write_classes

STARS = ("1", "2", "3", "4", "5")
SUITES = shown("yaml")
SCRIPTS = shown("python")


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch, tmp_path):
    monkeypatch.setattr(local, "_Pools", Inline)
    monkeypatch.chdir(tmp_path)
    yield
    for cached in (setting.task_of, setting.documents_of, variant.pool_of):
        cached.cache_clear()


def write_elsewhere(folder: Path) -> None:
    exec(compile(SCRIPTS["elsewhere.py"], "elsewhere.py", "exec"), {})


def write_texts(folder: Path) -> None:
    words = ("great", "awful", "a film", "rain", "sleep")
    rows = [(f"{words[i % 5]} {i}", 1 + i % 5, f"u{i // 2}") for i in range(120)]
    pd.DataFrame(rows, columns=["review", "stars", "user"]).to_csv(folder / "reviews.csv", index=False)


def write_reviews(folder: Path) -> None:
    write_texts(folder)
    for seed, name in enumerate(("reader_a", "reader_b")):
        save(folder / name, "bert", STARS, seed)


def write_pets(folder: Path) -> None:
    for start, name in enumerate(("train", "val", "test")):
        write_classes(folder / "pictures" / name, ("cat", "dog"), count=10, start=1000 * start)
    for seed, name in enumerate(("vit_a", "vit_b")):
        save(folder / name, "vit", ("cat", "dog"), seed)


def write_adapters(folder: Path) -> None:
    write_texts(folder)
    save(folder / "reader", "bert", STARS)
    for seed, name in enumerate(("lora_a", "lora_b")):
        torch.manual_seed(seed)
        base = AutoModelForSequenceClassification.from_pretrained(folder / "reader")
        config = LoraConfig(r=2, task_type="SEQ_CLS", target_modules=["query", "value"], init_lora_weights=False)
        get_peft_model(base, config).save_pretrained(folder / name)


def write_module(folder: Path) -> None:
    (folder / "network.py").write_text(SCRIPTS["network.py"])
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 26))
        save_file(network.state_dict(), folder / f"{name}.safetensors")


OWN = {"elsewhere.yaml": write_elsewhere, "reviews.yaml": write_reviews, "pets.yaml": write_pets,
       "adapters.yaml": write_adapters, "module.yaml": write_module}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_it_runs_as_it_stands_there(name, tmp_path, capsys):
    OWN[name](tmp_path)
    (tmp_path / name).write_text(SUITES[name] + "cost: {latency: false, memory: false, energy: false}\n")
    code, out, err = call(capsys, "run", name, *(["--allow-code"] if name == "module.yaml" else []))
    assert code == 0, err
    rows = pd.read_csv(f"{out.strip()}/variants.csv").query("seed == 'all'").set_index("variant")
    assert set(rows["status"]) == {"ok"}, rows["reason"].to_dict()
    assert {"best_single", "linear"} < set(rows.index)
    if name == "adapters.yaml":
        export = ("export", "results/adapters/latest", "uniform_soup", "lora", "--adapter-rank", "8")
        code, _, err = call(capsys, *export)
        assert code == 0, err
        assert (tmp_path / "lora/adapter_config.json").is_file()


def test_a_module_is_not_run_without_the_flag(tmp_path, capsys):
    write_module(tmp_path)
    (tmp_path / "module.yaml").write_text(SUITES["module.yaml"])
    code, _, err = call(capsys, "run", "module.yaml")
    assert (code, "--allow-code" in err, len(err.strip().splitlines())) == (2, True, 1)


def test_the_recipe_that_is_shown_is_merged_as_it_stands_there(tmp_path, capsys):
    write_models(tmp_path)
    (tmp_path / "models").mkdir()
    for name, made in (("base", "base"), ("expert-a", "chat"), ("expert-b", "math")):
        (tmp_path / made).rename(tmp_path / "models" / name)
    (tmp_path / "merge.yml").write_text(SUITES["merge.yml"])
    code, out, err = call(capsys, "merge", "merge.yml", "merged")
    assert (code, out) == (0, "merged\n"), err
    assert AutoModelForCausalLM.from_pretrained("merged").config.num_hidden_layers == 3
