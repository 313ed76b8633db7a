"""A combination in a file, as lm-eval's model ``stockpot`` and as its own: the same numbers as lm-eval's ``hf``."""

import json

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from harness.errors import BadInput
from harness.lm.combination_file import read_combination
from harness.lm.generation_settings import end_ids
from harness.lm.plugin import StockpotFromFile
from harness.methods.method import method
from harness.models.causal_lm import tiny_llama
from harness.registry import METHODS
from harness.systems.acceptance import Confidence
from harness.systems.fitting import uniform
from harness.systems.rules import Linear
from harness.systems.staged import Staged
from harness.systems.systems import OutputCombination, member_parts

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


def write(root, method, extra="", pool="{hf: {base: base, members: [a, b]}}"):
    path = root / "combination.yaml"
    path.write_text(f"pool: {pool}\nmethod: {method}\n{extra}")
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


def test_a_method_with_stages_is_refused_where_it_stands(folders, monkeypatch):
    def staged(ingredients):
        parts = member_parts(ingredients)
        rules = [OutputCombination(parts[:count], Linear(uniform(count))) for count in (1, 2)]
        return Staged(rules, [Confidence(0.5)])

    monkeypatch.setattr(METHODS, "_known", METHODS.all())
    method("staged", family="staged", summary="Two.", paper="-", needs={"members"})(staged)
    path = write(folders, "staged")
    with pytest.raises(BadInput, match="method 'staged' makes a Staged: lm-eval is given output rules and single") as e:
        read_combination(path, CPU)
    assert f"{path}:2" in str(e.value)


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


@pytest.fixture(scope="module")
def begun(folders):
    """Models whose tokenizer has a beginning token and no template that adds it; each folder ends texts its own way."""
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(folders / "a", bos_token="!")
    for seed, name in enumerate(("bos-base", "bos-a", "bos-b")):
        torch.manual_seed(seed)
        module = tiny_llama(vocab=len(words), hidden=16, layers=1, heads=2, context=128)
        for weight in module.parameters():
            torch.nn.init.normal_(weight, std=0.3)
        module.generation_config.eos_token_id = [0, *range(20 + 40 * seed, 50 + 40 * seed)]
        module.save_pretrained(folders / name)
        words.save_pretrained(folders / name)
    return folders


def generations():
    until = {"until": [], "max_gen_toks": 24}
    texts = ("the quick brown", "and runs", "the", "sleeps")
    return [Instance("generate_until", {}, (text, until), i) for i, text in enumerate(texts)]


@pytest.mark.parametrize("prefix", [None, 5])
@pytest.mark.parametrize("bos", [None, True, False])
def test_a_folders_model_answers_as_in_lm_evals_own_whatever_begins_and_ends_its_texts(begun, bos, prefix):
    path = write(begun, "{member: {index: 0}}", pool="{hf: {members: [bos-a]}}")
    ours = StockpotFromFile(config=str(path), add_bos_token=bos, prefix_token_id=prefix)
    theirs = HFLM(str(begun / "bos-a"), add_bos_token=bos, prefix_token_id=prefix, device="cpu")
    pairs = requests() + [Instance("loglikelihood", {}, pair, 9) for pair in (("", " cat"), ("!the", " fox"))]
    for one, other in zip(ours.loglikelihood(pairs), theirs.loglikelihood(pairs), strict=True):
        assert one == (pytest.approx(other[0], abs=1e-4), other[1])
    rolled = [Instance("loglikelihood_rolling", {}, (TEXT * 3,), 0)]
    assert ours.loglikelihood_rolling(rolled) == pytest.approx(theirs.loglikelihood_rolling(rolled), abs=1e-4)
    texts = ours.generate_until(generations())
    assert texts == theirs.generate_until(generations())
    assert len(set(map(len, texts))) > 1  # some end before the limit


def test_a_merge_ends_texts_as_its_base_and_a_mixture_as_any_member(begun):
    pool = "{hf: {base: bos-base, members: [bos-a, bos-b]}}"
    ends = {name: [0, *range(20 + 40 * seed, 50 + 40 * seed)] for seed, name in enumerate(("base", "a", "b"))}
    merge = StockpotFromFile(config=str(write(begun, "uniform_soup", pool=pool)))
    mixture = StockpotFromFile(config=str(write(begun, "linear", pool=pool)))
    assert end_ids(merge.models) == set(ends["base"])
    assert end_ids(mixture.models) == {*ends["a"], *ends["b"]}


def test_settings_of_generation_that_are_none_are_one_line(begun):
    file = begun / "bos-a" / "generation_config.json"
    whole = file.read_text()
    for broken in ("{", "[1]"):
        file.write_text(broken)
        with pytest.raises(BadInput, match=r"bos-a: generation_config\.json cannot be read") as caught:
            StockpotFromFile(config=str(write(begun, "{member: {index: 0}}", pool="{hf: {members: [bos-a]}}")))
        assert "\n" not in str(caught.value)
    file.write_text(whole)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ({"packed": "yes"}, "packed is true or false, not 'yes'"),
        ({"add_bos_token": 1}, "add_bos_token is true or false, not '1'"),
        ({"max_length": "long"}, "max_length is a whole number, not 'long'"),
        ({"max_gen_toks": None}, "max_gen_toks is a whole number, not 'None'"),
        ({"prefix_token_id": True}, "prefix_token_id is a whole number, not 'True'"),
    ],
)
def test_model_arguments_of_another_type_are_refused(folders, argument, words):
    with pytest.raises(BadInput, match=words):
        StockpotFromFile(config=str(write(folders, "linear")), **argument)


def test_unknown_model_arguments_are_refused(folders):
    with pytest.raises(BadInput, match="unknown argument 'confg'"):
        StockpotFromFile(confg="x")
    with pytest.raises(BadInput, match="combination file is missing"):
        StockpotFromFile()


def test_lm_evals_command_line_scores_it(folders, tmp_path, monkeypatch):
    from harness.lm import plugin

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
    plugin.run_lm_eval([*arguments, str(tmp_path), "--output_path", str(tmp_path / "out")])
    (result,) = (tmp_path / "out").rglob("*.json")
    assert json.loads(result.read_text())["results"]["toy"]["acc,none"] in (0.0, 1.0)
