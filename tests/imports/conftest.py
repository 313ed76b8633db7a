"""Real files of lm-eval: two tiny models with random weights, evaluated by lm-eval itself on tasks of this machine."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import datasets
import lm_eval
import pytest
from lm_eval.loggers import EvaluationTracker
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from tests.lm.conftest import build, tokenizer  # noqa: F401 (a fixture)
from tests.tasks.local_tasks import metrics, write_task

MODELS = ("model_a", "model_b")
TAKE = {"function": "take_first"}
EXACT = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}


def documents(count, choices):
    """Questions whose choices are as long as each other, so that models with random weights disagree."""
    words = ["salt", "water", "bones", "onion", "bread", "grain", "thyme", "pepper", "leek", "carrot"]
    return [
        {"q": f"question {row}", "gold": row * 7 % 5 % choices,
         "choices": [f"{words[(3 * row + 7 * k) % 10]} and {words[(row + k) % 10]}" for k in range(choices)]}
        for row in range(count)
    ]  # fmt: skip


def write_tasks(folder):
    """Multiple choice of three, of two to four, with texts as targets, with two right answers; and generation."""
    both = metrics("acc", "acc_norm", aggregation="mean")
    write_task(folder, "three", documents(24, 3), metric_list=both)
    mixed = [{**row, "choices": row["choices"][: 2 + number % 3], "gold": number % 2}
             for number, row in enumerate(documents(12, 4))]  # fmt: skip
    write_task(folder, "mixed", [*mixed, mixed[0]], metric_list=both, target_delimiter="")
    texts = [{**row, "gold": row["choices"][row["gold"]]} for row in documents(10, 3)]
    write_task(folder, "texts", texts, doc_to_target="{{gold}}")
    write_task(folder, "several", [{**row, "gold": [row["gold"], 0]} for row in documents(10, 3)], doc_to_target="gold")
    letters = {"name": "letters", "filter": [{"function": "regex", "regex_pattern": "([a-m])"}, TAKE]}
    write_task(folder, "generated", [{"q": f"say {number}", "gold": "[invalid]"} for number in range(16)],
               output_type="generate_until", doc_to_choice=None, doc_to_target="{{gold}}",
               generation_kwargs={"max_gen_toks": 2, "until": ["."]}, metric_list=[EXACT],
               filter_list=[{"name": "first", "filter": [TAKE]}, letters])  # fmt: skip


@pytest.fixture(scope="session")
def lm_eval_run(tmp_path_factory, tokenizer):  # noqa: F811
    """``folder`` with a folder of samples for each model, and lm-eval's ``scores`` by model and task."""
    folder = tmp_path_factory.mktemp("lm_eval")
    logging.disable(logging.CRITICAL)
    datasets.disable_progress_bars()
    write_tasks(folder / "tasks")
    manager = TaskManager(include_path=str(folder / "tasks"), include_defaults=False)
    scores = {}
    for seed, name in enumerate(MODELS):
        model = HFLM(pretrained=build("llama", seed), tokenizer=tokenizer, batch_size=4, device="cpu")
        found = lm_eval.simple_evaluate(
            model, tasks=["three", "mixed", "texts", "several", "generated"], task_manager=manager, bootstrap_iters=0,
            log_samples=True,
        )  # fmt: skip
        scores[name] = found["results"]
        tracker = EvaluationTracker(output_path=str(folder))
        tracker.general_config_tracker.model_name_sanitized = name
        tracker.save_results_aggregated(results={}, samples=found["samples"])
        for task, samples in found["samples"].items():
            tracker.save_results_samples(task_name=task, samples=samples)
    logging.disable(logging.NOTSET)
    datasets.enable_progress_bars()
    return SimpleNamespace(folder=folder, scores=scores)
