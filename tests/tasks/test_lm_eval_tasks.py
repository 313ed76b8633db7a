"""lm-eval's own tasks, on stand-ins for their documents: what a suite takes is scored as lm-eval scores it."""

import logging

import datasets
import pytest

from tests.tasks.stand_ins import search

NAMES = [
    "arc_challenge", "hellaswag", "piqa", "boolq", "copa", "openbookqa", "truthfulqa_mc2", "mmlu_anatomy", "sciq",
    "belebele_acm_Arab", "blimp_drop_argument", "wikitext", "c4", "paloma_c4_en", "global_mmlu_full_en_anatomy",
    "leaderboard_bbh_object_counting", "afrixnli_yor_prompt_3", "qnlieu", "assin_paraphrase", "winogrande",
    "bbq", "agieval_aqua_rat", "crows_pairs_english", "bigbench_strange_stories_multiple_choice", "gsm8k", "gsm8k_cot",
    "triviaqa", "nq_open", "babi", "fda", "squad_completion", "mgsm_direct_en", "wmt14-en-fr",
]  # fmt: skip
"""Of each way to write a task one: templates, functions, filters of documents, several metrics, examples, units."""


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    logging.disable(logging.CRITICAL)
    datasets.disable_progress_bars()
    yield
    logging.disable(logging.NOTSET)
    datasets.enable_progress_bars()


@pytest.mark.parametrize("name", NAMES)
def test_a_task_of_lm_eval_is_scored_as_by_lm_eval(name):
    assert search(name) == ("equal", "")
