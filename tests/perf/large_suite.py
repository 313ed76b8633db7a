"""A suite over large language models, with room for them and without: seconds, peak memory and scores of both.

``python -m tests.perf.large_suite [--big] [--memory 2GB] [--where FOLDER]``, to results/perf/large_suite.json: a base
and three fine-tunes of a Llama type in bfloat16, of 271 million parameters or 1.1 billion; three merges and a member,
scored on two documents, once with what memory there is and once with ``stockpot run --memory``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import pandas as pd
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

from harness.tasks.corpora import split_of
from tests.perf.make_models import make
from tests.perf.pool_of_files import run_suite

RESULTS = Path("results/perf/large_suite.json")
TASKS = Path("suites/tasks").resolve()
SUITE = f"""
suite: large
task: {{lm_eval: [cloze_python], include_path: {TASKS}}}
pool: {{hf: {{base: model-0, members: [model-1, model-2, model-3]}}}}
reference: member/index=0
methods:
  - member: {{index: 0}}
  - uniform_soup
  - task_arithmetic: {{scale: 0.3}}
  - ties: {{scale: 0.3}}
cost: {{latency: false, memory: false}}
"""


def write_models(folder: Path, size: str) -> None:
    """The folders of models, each with a tokenizer of 300 tokens, fewer than its vocabulary has."""
    make(folder, size, 3)
    trained = ByteLevelBPETokenizer()
    text = "".join(split_of("python", "train"))[:50_000]
    trained.train_from_iterator([text], vocab_size=300, special_tokens=["<end>"], show_progress=False)
    words = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<end>")
    for number in range(4):
        words.save_pretrained(folder / f"model-{number}")


def ran(suite: Path, out: Path, *flags: str) -> tuple[dict, pd.DataFrame]:
    """What a run took, and its table."""
    begin = time.perf_counter()
    peak = run_suite(suite, out, "--limit", "2", "--workers", "1", *flags)
    table = pd.read_csv(out / "large/latest/variants.csv")
    took = {"seconds": round(time.perf_counter() - begin, 1), "peak_gb": round(peak / 1e9, 2)}
    return took, table[["variant", "seed", "accuracy", "nll"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--big", action="store_true")
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--where", type=Path)
    asked = parser.parse_args()
    size = "big" if asked.big else "small"
    with tempfile.TemporaryDirectory(dir=asked.where) as made:
        folder = Path(made)
        write_models(folder, size)
        suite = folder / "large.yaml"
        suite.write_text(SUITE)
        without, streamed = ran(suite, folder / "streamed", "--memory", asked.memory)
        usual, held = ran(suite, folder / "held")
    same = streamed.equals(held)
    record = {"models": size, "memory": asked.memory, "without_room": without, "with_room": usual, "same_scores": same}
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({**known, size: record}, indent=2) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
