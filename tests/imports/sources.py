"""Small sources in the formats of others, each as its own writer lays it out, and the numbers that they hold."""

from __future__ import annotations

import json
import struct

import numpy as np
import pandas as pd

MODELS = ("mistralai/mixtral-8x7b", "gpt-4", "gpt 3.5")


def probabilities(rng, models, rows, classes, dtype=np.float32):
    """[models, rows, classes] in the dtype, whose rows sum to 1 as well as its rounding lets them."""
    return rng.dirichlet(np.ones(classes), (models, rows)).astype(dtype)


def simulation_artifact(seed=0, classes=3, val=20, test=30, names=None):
    """What ``TabularPredictor.simulation_artifact(test_data)`` gives: of two classes the second's probability alone."""
    rng = np.random.default_rng(seed)
    artifact = {"eval_metric": "log_loss", "problem_type": "binary" if classes == 2 else "multiclass", "label": "class",
                "num_classes": classes, "ordered_class_labels": names or [f"class {k}" for k in range(classes)],
                "ordered_class_labels_transformed": list(range(classes))}  # fmt: skip
    for split, rows in (("val", val), ("test", test)):
        index = pd.Index(rng.permutation(1000)[:rows])
        values = probabilities(rng, 2, rows, classes)
        if classes == 2:
            frames = [pd.Series(each[:, 1], index) for each in values]
        else:
            frames = [pd.DataFrame(each, index) for each in values]
        artifact[f"pred_proba_dict_{split}"] = dict(zip(("RandomForest_BAG_L1", "LightGBM"), frames, strict=True))
        artifact[f"y_{split}"] = pd.Series(np.arange(rows) % classes, index, name="class")
    return artifact


def write_tabarena(root, layout, seed=0, classes=3, dtype="float32", dataset="adult", fold=0):
    """One fold, as tabarena's ``_cache_data`` and the writer of labels of the ``layout`` lay it out.

    Returns its predictions [models, rows, classes] and labels by split.
    """
    rng = np.random.default_rng(seed)
    folder = root / dataset / str(fold)
    folder.mkdir(parents=True)
    models = ["CatBoost_c1_BAG_L1", "KNeighbors_c1_BAG_L1", "TabPFN_c1"]
    said, labels = {}, {}
    for split, rows in (("val", 25), ("test", 15)):
        values = probabilities(rng, len(models), rows, classes, dtype)
        said[split] = values[:, :, 1] if classes == 2 else values
        memmap = np.memmap(folder / f"pred-{split}.dat", dtype=dtype, mode="w+", shape=said[split].shape)
        memmap[:] = said[split]
        memmap.flush()
        numbers = rng.permutation(np.arange(rows) % classes)
        labels[split] = pd.Series(numbers, rng.permutation(100)[:rows], name="target")
    shapes = {f"pred_{split}_shape": of.shape for split, of in said.items()}
    facts = {"models": models, **shapes, "dtype": dtype}
    if layout == "tasks.dat":
        (folder.parent / layout).write_bytes(_tasks_dat(dataset, fold, facts, labels))
    else:
        (folder / "metadata.json").write_text(json.dumps({**facts, "dataset": dataset, "fold": fold}))
    if layout == "labels.dat":
        (folder / layout).write_bytes(_labels_dat(labels))
    elif layout == "label.csv.zip":
        for split, of in labels.items():
            of.to_csv(folder / f"label-{split}.csv.zip", index=True)
    return said, labels


def _packed(header, chunks):
    text = json.dumps(header, separators=(",", ":")).encode()
    return b"".join([struct.pack("<I", len(text)), text, *chunks])


def _labels_dat(labels):
    arrays = {split: of.to_numpy(np.int8) for split, of in labels.items()}
    header = {"version": 1, **{split: {"n": of.size, "dtype": of.dtype.str} for split, of in arrays.items()}}
    return _packed(header, [of.tobytes() for of in arrays.values()])


def _tasks_dat(dataset, fold, facts, labels):
    arrays = {split: of.to_numpy(np.int8) for split, of in labels.items()}
    where = {"val": 0, "test": arrays["val"].nbytes}
    entry = {**facts, "labels": {split: {"offset": where[split], "n": of.size, "dtype": of.dtype.str}
                                 for split, of in arrays.items()}}  # fmt: skip
    header = {"version": 1, "dataset": dataset, "folds": {str(fold): entry}}
    return _packed(header, [of.tobytes() for of in arrays.values()])


def routerbench(seed=0, rows=40, fractional=("mtbench",)):
    """RouterBench's wide table; the scores of evals in ``fractional`` are tenths, and some prompts are asked twice."""
    rng = np.random.default_rng(seed)
    evals = np.array(["mmlu", "gsm8k", "mtbench", "hellaswag"])[np.arange(rows) % 4]
    table = pd.DataFrame({
        "sample_id": [f"{name}.dev.{row}" for row, name in enumerate(evals)],
        "prompt": [f"['question {row - row % 8 % 5 // 4 * 4}, \"quoted\"\\n']" for row in range(rows)],
        "eval_name": evals,
    })  # fmt: skip
    for model in MODELS:
        tenths = np.isin(evals, fractional)
        table[model] = np.where(tenths, rng.integers(1, 10, rows) / 10, rng.integers(0, 2, rows).astype(float))
        table[f"{model}|model_response"] = "['an answer, with a comma']"
        table[f"{model}|total_cost"] = rng.random(rows) * 1e-3
    table["oracle_model_to_route_to"] = "no_model_correct"
    return table


def routellm(seed=0, rows=40):
    """RouteLLM's table of responses; a prompt is asked twice."""
    rng = np.random.default_rng(seed)
    right = rng.integers(0, 2, (rows, 2)).astype(bool)
    table = pd.DataFrame(right, columns=["mixtral-8x7b-instruct-v0.1", "gpt-4-1106-preview"])
    table.insert(0, "prompt", [f"What is {row % (rows - 1)} + 1?\nA. 1\nB. \"2\"\nAnswer:" for row in range(rows)])
    return table


def every_eval_ever(model, seed=0, rows=30, fractional=()):
    """Lines of an ``InstanceLevelEvaluationLog`` (schema 0.2.2) of two evaluations."""
    rng = np.random.default_rng(seed)
    lines = []
    for row in range(rows):
        name = ("gsm8k", "mmlu")[row % 2]
        score = float(rng.integers(1, 10) / 10 if name in fractional else rng.integers(0, 2))
        lines.append({
            "schema_version": "0.2.2", "evaluation_id": f"{name}/{model}/1", "model_id": model, "evaluation_name": name,
            "sample_id": f"id{row}", "interaction_type": "single_turn",
            "input": {"raw": f"Question {row}?", "formatted": None, "reference": ["A"], "choices": None},
            "output": {"raw": ["A"], "reasoning_trace": []}, "messages": None,
            "answer_attribution": [{"turn_idx": 0, "source": "output.raw", "extracted_value": "A",
                                    "extraction_method": "exact_match", "is_terminal": True}],
            "evaluation": {"score": score, "is_correct": score >= 0.5, "num_turns": None, "tool_calls_count": None},
            "token_usage": {"input_tokens": 100 + row, "output_tokens": 2, "total_tokens": 102 + row},
            "performance": {"latency_ms": None, "generation_time_ms": 10.0 + row}, "error": None, "metadata": None,
        })  # fmt: skip
    return lines


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def read_pool(folder):
    """The members' frames by file, indexed by id, and the two tables of labels."""
    splits = {name: pd.read_parquet(folder / f"{name}.parquet").set_index("id") for name in ("heldout", "test")}
    members = {path.stem: pd.read_parquet(path).set_index("id") for path in sorted(folder.glob("*.parquet"))
               if path.stem not in splits}  # fmt: skip
    return members, splits
