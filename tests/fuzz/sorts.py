"""What is fuzzed: sorts of input, each a folder that is whole, how its files are damaged, and what reads it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
import yaml

from tests.fuzz import damage

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Sort:
    """One sort of input."""

    what: str
    """The files, for people."""
    write: Callable[[Path], None]
    """Writes the whole files into an empty folder."""
    files: Sequence[str]
    """Patterns of those that are damaged."""
    read: Callable[[Path, Path], Any]
    """Reads a folder of which the second argument was damaged."""


def spoil(chance: random.Random, folder: Path, sort: Sort) -> Path:
    """Damage one file of a folder; returns it."""
    file = chance.choice(sorted(file for pattern in sort.files for file in folder.glob(pattern)))
    content = file.read_bytes()
    if file.suffix in (".yaml", ".yml", ".csv", ".md", ".jinja"):
        content = damage.text_file(chance, content)
    elif file.suffix == ".json":
        content = damage.json_file(chance, content)
    elif file.suffix == ".jsonl":
        lines = content.splitlines()
        at = chance.randrange(len(lines))
        lines[at] = damage.json_file(chance, lines[at])
        content = b"\n".join(lines)
    elif file.suffix == ".safetensors":
        content = damage.safetensors(chance, content)
    elif file.suffix in (".npz", ".zip"):
        content = damage.archive(chance, content, folder)
    else:
        content = damage.raw(chance, content)
    file.write_bytes(content)
    return file


SUITE = """suite: tiny
question: Which?
task: {task}
pool: {pool}
pools:
  more:
    train: {{architecture: mlp, start: independent, members: 2, epochs: 1, vary: {{lr: [0.01, 0.02]}}}}
seeds: [0, 1]
score: accuracy
reference: best_single
methods:
  - best_single
  - linear: {{weights: [uniform, learned], members: [[0, 1], [1]]}}
  - uniform_soup: {{pool: more}}
  - ties: {{density: [0.1, 0.2], scale: heldout, pool: [more]}}
  - temperature
correlate: {{pools: [more], subsets: {{sizes: [2], at_most: 10}}}}
cost: {{latency: false, memory: false}}
"""


def _suites(folder: Path) -> None:
    trained = "{train: {architecture: [mlp, small_cnn], start: independent, members: 3, epochs: 1}}"
    predicted = "{predictions: {members: {a: a.csv, b: b.npz}}}"
    (folder / "trained.yaml").write_text(SUITE.format(task="digits", pool=trained))
    lines = SUITE.format(task="{table: {test: test.csv, heldout: heldout.csv}}", pool=predicted).split("\n")
    of_weights = ("pools:", "  more:", "    train:", "soup", "ties", "correlate", "seeds")  # which predictions have not
    plain = "\n".join(line for line in lines if not any(word in line for word in of_weights))
    (folder / "predicted.yaml").write_text(plain)
    task = "{texts: {train: texts.csv, heldout: 0.2, test: 0.3, text: text, label: label}}"
    (folder / "texts.yaml").write_text(SUITE.format(task=task, pool="{hf: {members: [a, b]}}"))
    _predictions(folder)
    texts = pd.DataFrame({"text": [f"word {row}" for row in range(30)], "label": ["yes", "no"] * 15})
    texts.to_csv(folder / "texts.csv", index=False)


def _read_suite(folder: Path, file: Path) -> None:
    from harness.run.plan import Options
    from harness.run.planning import make_plan
    from harness.suite.suite import read_suite

    suite = read_suite(file)
    if suite.task.kind == "texts":
        _render(suite, folder)
    elif suite.task.kind != "text":  # lm-eval's tasks are a sort of their own
        make_plan(suite, Options(folder / "out", device="cpu"))


def _render(suite: Any, folder: Path) -> None:
    """Read the task's examples."""
    from harness.registry import KINDS
    from harness.store import Store

    KINDS.get(suite.task.kind).rendered(suite.task, Store(folder / ".store"), None, False)


def _shipped(folder: Path) -> None:
    for file in (ROOT / "suites").glob("*.yaml"):
        if not file.name.endswith(".policy.yaml"):
            shutil.copy(file, folder)


def _read_shipped(folder: Path, file: Path) -> None:
    from harness.suite.suite import read_suite

    read_suite(file)


def _policies(folder: Path) -> None:
    shutil.copy(ROOT / "suites" / "mnist.policy.yaml", folder / "policy.yaml")


def _read_policy(folder: Path, file: Path) -> None:
    from harness.gate.policy import read_policy

    read_policy(file)


def _models(folder: Path, shards: bool = False) -> None:
    from tests.recipes.families import write_models

    write_models(folder, shards=shards, num_hidden_layers=2)


RECIPES = {
    "ties": {
        "merge_method": "ties",
        "base_model": "base",
        "models": [{"model": name, "parameters": {"weight": 0.4, "density": 0.5}} for name in ("chat", "math")],
        "dtype": "float32",
        "parameters": {"normalize": True},
    },
    "slices": {
        "merge_method": "passthrough",
        "slices": [{"sources": [{"model": name, "layer_range": [0, 1]}]} for name in ("chat", "math")],
        "out_dtype": "bfloat16",
        "tokenizer": {"source": "union", "tokens": {"w5": {"source": "chat"}}},
    },
    "slerp": {
        "merge_method": "slerp",
        "base_model": "chat",
        "models": [{"model": "chat"}, {"model": "math"}],
        "parameters": {"t": [{"filter": "mlp", "value": [0, 0.5, 1]}, {"value": 0.3}]},
        "chat_template": "auto",
    },
}


def _recipes(folder: Path) -> None:
    _models(folder)
    for name, recipe in RECIPES.items():
        (folder / f"{name}.yml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    both = [{"name": "first", **RECIPES["slerp"]}, {**RECIPES["ties"], "base_model": "first"}]
    (folder / "stages.yml").write_text(yaml.safe_dump_all(both, sort_keys=False))


def _read_recipe(folder: Path, file: Path) -> None:
    from harness.recipes.merge import Options, merge_recipe

    recipe = file if file.suffix == ".yml" else folder / "ties.yml"
    merge_recipe(recipe, folder / "merged", Options(hashes=False, threads=1))


COMBINATION = """pool: {hf: {base: base, members: [chat, math]}}
method: {linear: {weights: uniform}}
heldout: heldout.txt
seed: 1
"""


def _combinations(folder: Path) -> None:
    _models(folder)
    (folder / "combination.yaml").write_text(COMBINATION)
    (folder / "soup.yaml").write_text(COMBINATION.replace("linear: {weights: uniform}", "ties: {density: 0.5}"))
    (folder / "heldout.txt").write_text("w3 w4 w5 w6 " * 40)


def _read_combination(folder: Path, file: Path) -> None:
    from harness.lm.combination_file import read_combination

    read_combination(file, torch.device("cpu"))


def _folders(folder: Path) -> None:
    from tests.recipes.small_adapters import put

    _models(folder, shards=True)
    (folder / "base" / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    put(folder / "adapter", folder / "base", target_modules=["q_proj", "down_proj"])
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    models = [{"model": name, "parameters": {"weight": 0.5}} for name in ("base", "base+adapter")]
    recipe = {"merge_method": "linear", "models": models}
    (folder / "linear.yml").write_text(yaml.safe_dump(recipe))


def _read_folder(folder: Path, file: Path) -> None:
    """As a member, and as a model of a recipe: whatever one of the two refuses, the other reads too."""
    from harness.errors import BadInput
    from harness.models.causal_lm import read_generation_config
    from harness.pools.folder_plan import plan_folder
    from harness.recipes.merge import Options, merge_recipe

    refused = []
    try:
        base = plan_folder("base", str(folder / "base"))
        read_generation_config(folder / "base")
        if file.parent.name == "adapter":
            plan_folder("m0", str(folder / "adapter"), base).model.weights()["lm_head.weight"]
    except BadInput as fault:
        refused.append(fault)
    merge_recipe(folder / "linear.yml", folder / "merged", Options(hashes=False, threads=1))
    if refused:
        raise refused[0]


def _predictions(folder: Path) -> None:
    chance = np.random.default_rng(0)
    ids = [f"x{row}" for row in range(60)]
    labels = ["yes", "no"] * 30
    table = pd.DataFrame(chance.dirichlet((1, 1), 60), columns=["yes", "no"]).assign(id=ids)
    table.assign(cost_ms=1.0).to_csv(folder / "a.csv", index=False)
    table.to_parquet(folder / "a.parquet", index=False)
    values = table[["yes", "no"]].to_numpy()
    np.savez(folder / "b.npz", ids=np.array(ids), classes=np.array(["yes", "no"]), probabilities=values)
    np.savez_compressed(folder / "c.npz", ids=np.array(ids), logits=np.log(values), cost_s=np.ones(60))
    whole = pd.DataFrame({"id": ids, "label": labels})
    whole[:20].to_csv(folder / "heldout.csv", index=False)
    whole[20:].to_csv(folder / "test.csv", index=False)


def _read_predictions(folder: Path, file: Path) -> None:
    from harness.models.prediction_file import read_predictions

    read_predictions(file)


def _imports(folder: Path) -> None:
    from tests.imports.sources import write_tabarena

    for layout in ("labels.dat", "label.csv.zip", "tasks.dat"):
        write_tabarena(folder / layout.replace(".", "_"), layout)
    lines = [
        {"doc_id": row, "doc": {"q": f"q{row}"}, "target": "0", "filter": "none", "metrics": ["acc"], "acc": 1,
         "resps": [[["-1.0", "False"]], [["-2.0", "True"]]], "filtered_resps": [["-1.0", "False"], ["-2.0", "True"]],
         "arguments": {"gen_args_0": {"arg_0": "q", "arg_1": " a"}, "gen_args_1": {"arg_0": "q", "arg_1": " b"}}}
        for row in range(8)
    ]  # fmt: skip
    for model in ("model_a", "model_b"):
        (folder / model).mkdir()
        text = "\n".join(json.dumps(line) for line in lines)
        (folder / model / "samples_t_2026-01-01T00-00-00.jsonl").write_text(text)


def _read_import(folder: Path, file: Path) -> None:
    from harness import imports
    from harness.imports.format import Asked, Given

    place = folder / file.relative_to(folder).parts[0]
    given = [Given(folder / "model_a"), Given(folder / "model_b")] if file.suffix == ".jsonl" else [Given(place)]
    form = imports.choose_format(given, None)
    imports.write_pool(imports.read_given(given, form, Asked()), folder / "pool", form.name, None, 0)


def _tables(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet

    columns = {"text": [f"word {row}" for row in range(30)], "label": ["yes", "no"] * 15, "id": list(range(30))}
    frame = pd.DataFrame(columns)
    frame.to_csv(folder / "t.csv", index=False)
    frame.to_json(folder / "t.jsonl", orient="records", lines=True)
    frame.to_json(folder / "t.json", orient="records")
    pyarrow.parquet.write_table(pa.table(columns), folder / "t.parquet")
    pyarrow.feather.write_feather(pa.table(columns), str(folder / "t.feather"), compression="lz4")


def _read_tables(folder: Path, file: Path) -> None:
    from harness.suite.suite import read_suite

    (folder / "suite.yaml").write_text(
        f"suite: s\ntask: {{texts: {{train: {file.name}, heldout: 0.2, test: 0.3, id: id}}}}\n"
        "pool: {hf: {members: [a]}}\nmethods: [best_single]\n"
    )
    _render(read_suite(folder / "suite.yaml"), folder)


TASK = """task: mine
dataset_path: json
dataset_kwargs:
  data_files: {test: DATA}
output_type: multiple_choice
test_split: test
num_fewshot: 1
description: "Answer {{ 1 + 1 }}."
doc_to_text: "{{question.strip()}}"
doc_to_choice: choices
doc_to_target: gold
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
filter_list:
  - {name: first, filter: [{function: take_first}]}
metadata: {version: 1}
"""


def _tasks(folder: Path) -> None:
    rows = [{"question": f"What is {row}? ", "choices": ["yes", "no"], "gold": row % 2} for row in range(4)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "mine.yaml").write_text(TASK.replace("DATA", str(folder / "data.jsonl")))


def _read_tasks(folder: Path, file: Path) -> None:
    from lm_eval.tasks import TaskManager

    from harness.tasks.questions import Questions

    if file.suffix == ".yaml":  # a task that lost its name is looked for among lm-eval's own, which takes seconds
        index = TaskManager(include_path=str(folder), include_defaults=False).task_index
        if "mine" not in index:
            return
    # A task may name a dataset of the hub, which is then asked for: here that has to do without.
    with patch("datasets.config.HF_HUB_OFFLINE", True), patch("huggingface_hub.constants.HF_HUB_OFFLINE", True):
        Questions(["mine"], str(folder))


def _runs(folder: Path) -> None:
    from tests.gate.planted import coins, planted, saved

    run = planted({"best_single": coins(0.7, 60), "linear": coins(0.8, 60)})
    saved(run, folder / "planted" / "run")
    saved(run, folder / "planted" / "other")
    (folder / "policy.yaml").write_text(
        "version: 1\nrules:\n- {id: floor, match: {metric: accuracy}, min: 0.5}\n"
        "- {id: drop, match: {metric: accuracy}, vs: baseline, max_drop: {abs: 0.02}, test: paired}\n"
    )


def _call(*words: object) -> None:
    """The command itself, but for what it makes of an error."""
    from harness.cli.main import app

    try:
        app([*map(str, words)], standalone_mode=False)
    except SystemExit as end:
        if end.code not in (0, 1, 2, 3, 4, 5, None):
            raise


def _drawn(file: Path, verbs: Sequence[tuple[object, ...]]) -> tuple[object, ...]:
    """One of these by the damaged file's content."""
    return verbs[sum(file.read_bytes()[-500:]) % len(verbs)] if file.is_file() else verbs[0]


def _read_run(folder: Path, file: Path) -> None:
    run, other = folder / "planted" / "run", folder / "planted" / "other"
    junit = folder / "junit.xml"
    gate = ("gate", run, "--policy", folder / "policy.yaml", "--baseline", other, "--junit", junit)
    others = ("compare", other, run), ("baseline", "set", run, "--reason", "new", "--out", folder)
    _call(*_drawn(file, (gate, gate, gate, *others)))


def _reference(folder: Path) -> None:
    kept = ROOT / "results" / "reference" / "tables"
    (folder / "tables" / "run").mkdir(parents=True)
    for name in ("run.json", "details.json", "variants.csv", "scores.parquet", "comparisons.parquet"):
        shutil.copy(kept / name, folder / "tables" / "run")


def _read_reference(folder: Path, file: Path) -> None:
    run = folder / "tables" / "run"
    _call(*_drawn(file, (("model-index", run, "linear"), ("history", "--out", folder), ("ls", "runs", "--out", folder),
                         ("eval-results", run, "linear", "--dataset", "a/b", "--task", "t"))))  # fmt: skip


def _read_report(folder: Path, file: Path) -> None:
    _call("report", folder / "tables" / "run")


SORTS = {
    "suite": Sort("suite files, planned", _suites, ("*.yaml",), _read_suite),
    "shipped suite": Sort("the suites that ship, read", _shipped, ("*.yaml",), _read_shipped),
    "policy": Sort("a gate's policy", _policies, ("policy.yaml",), _read_policy),
    "recipe": Sort("merge recipes", _recipes, ("*.yml",), _read_recipe),
    "combination": Sort("combinations of language models", _combinations, ("*.yaml",), _read_combination),
    "safetensors": Sort("weights of models and adapters", _folders,
                        ("base/*.safetensors", "adapter/*.safetensors"), _read_folder),
    "model folder": Sort("configs, indices, tokenizers, templates", _folders,
                         ("base/*.json", "base/*.jinja", "adapter/*.json"), _read_folder),
    "predictions": Sort("members' predictions: csv, parquet, npz", _predictions,
                        ("*.csv", "*.parquet", "*.npz"), _read_predictions),
    "import": Sort("archives and logs of other tools", _imports,
                   ("*/*/*/*", "*/*/*.dat", "model_*/*.jsonl"), _read_import),
    "table": Sort("texts: csv, json, parquet, feather", _tables, ("t.*",), _read_tables),
    "task file": Sort("an lm-eval task and its data", _tasks, ("mine.yaml", "data.jsonl"), _read_tasks),
    "run folder": Sort("a run, for gate, compare and baseline", _runs, ("planted/run/*",), _read_run),
    "kept run": Sort("a run, for history, model-index, eval-results", _reference, ("tables/run/*",), _read_reference),
    "report": Sort("a run, for its report", _reference, ("tables/run/*",), _read_report),
}  # fmt: skip
