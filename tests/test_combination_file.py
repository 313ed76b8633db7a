"""A combination in a file, as lm-eval's model ``stockpot`` and as its own: the same numbers as lm-eval's ``hf``."""

import json

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from harness.combination_file import read_combination
from harness.errors import BadInput
from harness.lm_eval_plugin import StockpotFromFile
from harness.models.causal_lm import tiny_llama

CPU = torch.device("cpu")
TEXT = "the quick brown fox jumps over the lazy dog and runs away from the slow grey cat that sleeps "


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("combination")
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([TEXT * 4], vocab_size=280, special_tokens=["<|endoftext|>"], show_progress=False)
    words = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<|endoftext|>")
    for seed, name in enumerate(("base", "a", "b")):
        torch.manual_seed(seed)
        tiny_llama(vocab=len(words), hidden=16, layers=1, heads=2, context=128).save_pretrained(root / name)
        words.save_pretrained(root / name)
    (root / "heldout.txt").write_text(TEXT * 40)
    return root


def write(root, method, extra=""):
    path = root / "combination.yaml"
    path.write_text(f"pool: {{hf: {{base: base, members: [a, b]}}}}\nmethod: {method}\n{extra}")
    return path


def requests():
    pairs = [("the quick brown", " fox jumps"), ("the quick brown", " cat"), ("and runs", " away from the slow")]
    return [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]


def hf(folder, instances):
    from transformers import AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    lm = HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(folder), batch_size=2)
    return lm.loglikelihood(instances, disable_tqdm=True)


@pytest.mark.parametrize("method", ["{linear: {weights: [1.0, 0.0]}}", "{log_linear: {weights: [1, 0]}}",
                                    "{task_arithmetic: {coefficients: [1.0, 0.0], scale: 1.0}}"])  # fmt: skip
def test_all_weight_on_one_member_is_lm_evals_own_model(folders, method):
    found = StockpotFromFile(config=str(write(folders, method))).loglikelihood(requests(), disable_tqdm=True)
    for ours, theirs in zip(found, hf(folders / "a", requests()), strict=True):
        assert ours[0] == pytest.approx(theirs[0], abs=1e-4)
        assert ours[1] == theirs[1]


def test_weights_are_learned_on_the_files_text(folders):
    path = write(folders, "{linear: {weights: learned}}", "heldout: heldout.txt\n")
    combination, _ = read_combination(path, CPU)
    assert sum(combination.details["weights"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("method", "extra", "words"),
    [
        ("{linaer: {}}", "", "did you mean 'linear'"),
        ("{linear: {weights: [0.5, 0.5, 0.0]}}", "", "3 weights are given for 2 members"),
        ("{linear: {weights: learned}}", "", "name a text file under 'heldout'"),
        ("{linear: {weights: learned}}", "heldout: none.txt\n", "no such file"),
        ("linear", "helduot: x\n", "helduot"),
        ("{bagging: {}}", "", "does not apply"),
    ],
)
def test_a_mistake_is_one_line(folders, method, extra, words):
    with pytest.raises(BadInput) as caught:
        read_combination(write(folders, method, extra), CPU)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_model_arguments_are_refused(folders):
    with pytest.raises(BadInput, match="unknown argument 'confg'"):
        StockpotFromFile(confg="x")
    with pytest.raises(BadInput, match="combination file is missing"):
        StockpotFromFile()


def test_lm_evals_command_line_scores_it(folders, tmp_path, monkeypatch):
    from harness import lm_eval_plugin

    (tmp_path / "docs.jsonl").write_text(
        "\n".join(json.dumps({"q": "the quick brown", "c": [" fox", " cat"], "gold": 0}) for _ in range(3))
    )
    (tmp_path / "toy.yaml").write_text(
        f"task: toy\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path / 'docs.jsonl'}}}}}\n"
        "output_type: multiple_choice\ntest_split: test\ndoc_to_text: '{{q}}'\ndoc_to_choice: c\ndoc_to_target: gold\n"
        "target_delimiter: ''\nmetric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.argv", ["pytest"])
    config = write(folders, "{linear: {weights: [0.5, 0.5]}}")
    arguments = ["--model", "stockpot", "--model_args", f"config={config}", "--tasks", "toy", "--include_path"]
    lm_eval_plugin.run_lm_eval([*arguments, str(tmp_path), "--output_path", str(tmp_path / "out")])
    (result,) = (tmp_path / "out").rglob("*.json")
    assert json.loads(result.read_text())["results"]["toy"]["acc,none"] in (0.0, 1.0)
