"""Many combinations in one pass over an lm-eval task: each has the scores that lm-eval gives it alone."""

from dataclasses import replace
from pathlib import Path

import lm_eval
import numpy as np
import pytest
import torch
from lm_eval.tasks import TaskManager

from harness.lm.evaluation import measures, score_combinations
from harness.lm.lm_eval_model import StockpotLM
from harness.models.architectures import build
from harness.models.configuration import architecture_of, config_of
from harness.models.tokens import read_tokenizer, tokenizer_of
from harness.models.weights import module_with, without_ties
from harness.store import Store
from harness.systems.dropout import DropoutPass, StochasticNetwork, has_dropout
from harness.systems.fitting import uniform
from harness.systems.parts import MemberPart
from harness.systems.rules import Contrast, Linear, LogLinear
from harness.systems.systems import OutputCombination, SingleModel
from harness.tasks import text
from harness.types import Architecture, Member, Unscored

TASKS = ("cloze_python", "bytes_python")
FOLDER = str(Path(__file__).parents[2] / "suites" / "tasks")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(text, "DOMAINS", {"python": text.DOMAINS["python"]})  # the one that comes with the interpreter
    patch.setattr(text, "TOKENIZER_CHARACTERS", 50_000)
    patch.setattr(text, "WINDOWS", {"train": 20, "heldout": 3, "test": 2})
    patch.setattr(text, "VOCABULARY", 400)
    yield text.load(text.TextReference("toy", TASKS, FOLDER), Store(tmp_path_factory.mktemp("store")), limit=12)
    patch.undo()


@pytest.fixture(scope="module")
def combinations(task):
    architecture = Architecture("tiny_llama", (("hidden", 16), ("layers", 1), ("heads", 2), ("vocab", task.vocabulary)))
    torch.manual_seed(0)
    members = [Member(f"m{k}", architecture, build(architecture).state_dict(), "", 0, {}, f"m{k}") for k in range(3)]
    parts = [MemberPart(member) for member in members]
    return [
        OutputCombination(parts[:1], Linear(uniform(1))),
        OutputCombination(parts, Linear(uniform(3))),
        OutputCombination(parts[1:], LogLinear(torch.tensor([1.5, -0.5]))),
        OutputCombination(parts, Contrast(0.5, "none", 0.1)),
        SingleModel(architecture, module_with(architecture, members[2].weights)),
    ]


def test_each_has_the_scores_that_lm_eval_gives_it_alone(task, combinations):
    found = score_combinations(combinations, task)
    assert [each["models"] for each in found.record] == [4]
    manager = TaskManager(include_path=FOLDER, include_defaults=False)
    for combination, answers in zip(combinations, found.answers, strict=True):
        rule = combination.rule if isinstance(combination, OutputCombination) else Linear(uniform(1))
        alone = StockpotLM([part.module for part in combination.parts()], rule, read_tokenizer(task.tokenizer))
        theirs = lm_eval.simple_evaluate(
            alone, tasks=list(TASKS), task_manager=manager, limit=12, bootstrap_iters=0, log_samples=True
        )
        samples = theirs["samples"]["cloze_python"]
        assert answers.metrics["acc/cloze_python"].tolist() == [sample["acc"] for sample in samples]
        own = measures(answers)
        assert own["bits_per_byte"].mean() == pytest.approx(
            theirs["results"]["bytes_python"]["bits_per_byte,none"], rel=1e-6
        )
        said = np.array([[pair[0] for pair in sample["filtered_resps"]] for sample in samples], dtype=float)
        expected = said - np.logaddexp.reduce(said, axis=1, keepdims=True)
        np.testing.assert_allclose(answers.log_probs, expected, atol=1e-4)


def test_passes_with_dropout_are_stochastic_in_the_scorer_too(task):
    """Their mixture is that of the passes themselves, and not the network without dropout several times over."""
    settings = {"vocab_size": task.vocabulary, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 128}
    settings |= {"model_type": "gpt2", "resid_pdrop": 0.3, "bos_token_id": 0, "eos_token_id": 0}
    architecture = architecture_of(config_of(settings))
    torch.manual_seed(0)
    weights = {name: torch.randn_like(t) / 4 for name, t in without_ties(build(architecture)).items()}
    whole = MemberPart(Member("m", architecture, weights, "", 0, {}, "m"))
    passes = [DropoutPass(whole, index, 1) for index in range(3)]
    alone = [OutputCombination([part], Linear(uniform(1))) for part in (whole, *passes)]
    mixture = OutputCombination(passes, Linear(uniform(3)))
    *each, mixed = (answers.rolling[0].nats for answers in score_combinations([*alone, mixture], task).answers)
    assert len({tuple(nats) for nats in each}) == 4
    again = score_combinations([mixture], task).answers[0].rolling[0].nats
    np.testing.assert_allclose(again, mixed, rtol=1e-6)
    assert (mixed >= np.mean(each[1:], axis=0)).all()  # token by token a mean's logarithm is above the logarithms' mean


def test_attention_that_drops_by_itself_is_dropout(task):
    settings = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    settings |= {"num_attention_heads": 2, "model_type": "llama"}
    for rate in (0.0, 0.5):
        module = build(architecture_of(config_of(settings | {"attention_dropout": rate})))
        for weight in module.parameters():
            torch.nn.init.normal_(weight)
        assert has_dropout(module) == (rate > 0)
        tokens = torch.arange(12).view(1, 12)
        one, two = (StochasticNetwork(module, seed)(input_ids=tokens).logits for seed in (1, 2))
        assert torch.equal(one, two) == (rate == 0)


def test_a_context_longer_than_a_model_is_an_error_and_no_score(task):
    options = (("context", 16), ("hidden", 16), ("layers", 1), ("heads", 2), ("vocab", task.vocabulary))
    short = Architecture("tiny_llama", options)
    (found,) = score_combinations([SingleModel(short, build(short))], task).answers
    assert isinstance(found, Unscored)
    assert "requests are longer than the 16 tokens" in str(found)


def lone(task, seed, vocabulary=None, context=512):
    size = vocabulary or task.vocabulary
    options = (("context", context), ("hidden", 16), ("layers", 1), ("heads", 2), ("vocab", size))
    architecture = Architecture("tiny_llama", options)
    torch.manual_seed(seed)
    weights = {name: 4 * tensor for name, tensor in build(architecture).state_dict().items()}
    name = f"m{seed}"
    return Member(name, architecture, weights, "", 0, {}, f"{name}/{vocabulary}/{context}", task.heldout.tokenizer)


def assert_same(found, expected):
    assert np.array_equal(found.log_probs, expected.log_probs)
    for name, values in expected.metrics.items():
        assert np.array_equal(found.metrics[name], values)
    for one, other in zip(found.rolling, expected.rolling, strict=True):
        assert np.array_equal(one.nats, other.nats)


def test_a_row_depends_on_its_own_members_only(task):
    """Bit for bit, whatever stands beside them: padded otherwise, shorter, too short, without tokens, or broken."""
    size = task.vocabulary + 8
    own = [MemberPart(lone(task, seed, size)) for seed in range(2)]
    rows = [OutputCombination(own[:1], Linear(uniform(1))), OutputCombination(own, Linear(uniform(2)))]
    broken = lone(task, 5, size)
    broken.weights["model.layers.0.mlp.up_proj.weight"].fill_(torch.nan)
    kinds = {
        "padded": lone(task, 2, size + 8),
        "shorter": lone(task, 3, size, context=150),
        "too short": lone(task, 4, size, context=8),
        "broken": broken,
        "lacking": lone(task, 6, 200),
    }
    beside = {name: MemberPart(member) for name, member in kinds.items()}
    alone = score_combinations(rows, task).answers
    others = [OutputCombination([part], Linear(uniform(1))) for part in beside.values()]
    others += [
        OutputCombination([own[0], beside[name]], Linear(uniform(2))) for name in ("padded", "shorter", "broken")
    ]
    found = score_combinations([*others, *rows], task).answers
    for one, other in zip(found[-2:], alone, strict=True):
        assert_same(one, other)
    said = dict(zip([*beside, "with padded", "with shorter", "with broken"], found[:-2], strict=True))
    reasons = {name: str(answer) for name, answer in said.items() if isinstance(answer, Unscored)}
    assert reasons.keys() == {"too short", "broken", "lacking", "with broken"}
    assert "longer than the 8 tokens that a model takes" in reasons["too short"]
    assert reasons["broken"] == reasons["with broken"] == "m5 gives logits that are not finite (NaN weights?)"
    assert "the vocabulary has 200 tokens" in reasons["lacking"]
    for name in ("padded", "shorter"):
        (again,) = score_combinations([others[list(beside).index(name)]], task).answers
        assert_same(said[name], again)


def test_members_padded_otherwise_are_mixed_over_the_tokens_of_their_tokenizer(task):
    """A float64 mixture of each member's softmax over these, document by document."""
    parts = [MemberPart(lone(task, seed, task.vocabulary + more)) for seed, more in ((0, 8), (1, 24))]
    (found,) = score_combinations([OutputCombination(parts, Linear(uniform(2)))], task).answers
    words = text.read_tokenizer(task.tokenizer)
    document = next(i for i in task.questions.instances if i.request_type == "loglikelihood_rolling").args[0]
    tokens = [words.eos_token_id, *words.encode(document)]
    assert len(tokens) < 512
    with torch.no_grad():
        logits = [part.module.double()(input_ids=torch.tensor([tokens[:-1]])).logits[0] for part in parts]
    mixed = torch.stack([each[:, : task.vocabulary].softmax(-1) for each in logits]).mean(0).log()
    expected = float(mixed.gather(-1, torch.tensor(tokens[1:])[:, None]).sum())
    assert found.rolling[0].nats[0] == pytest.approx(expected, abs=1e-3)


def test_documents_are_labelled_as_lm_eval_labels_them(task):
    documents = task.documents
    assert len(documents.ids) == len(set(documents.ids)) == 12
    assert set(documents.tasks) == {"cloze_python"}
    assert documents.classes == 4


def test_windows_predict_the_next_token(task):
    rows = task.heldout.inputs
    assert task.heldout.labels.tolist() == rows[:, 1:].flatten().tolist()
    assert set(task.heldout.groups) == {"python"}
    words = read_tokenizer(task.tokenizer)
    assert words.decode(rows[0]) in "".join(text.split_of("python", "heldout"))


def test_texts_begin_with_the_token_of_the_members_own_tokenizer(task, tmp_path):
    """A base and its chat model make the same tokens of text, and may end texts differently."""
    members = []
    for k, end in enumerate(("<|endoftext|>", "<|im_end|>")):
        words = read_tokenizer(task.tokenizer, eos_token=end)
        words.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
        words.save_pretrained(tmp_path / str(k))
        members.append(replace(lone(task, 0, task.vocabulary + 1), tokenizer=tokenizer_of(tmp_path / str(k))))
    assert members[0].tokenizer == members[1].tokenizer
    parts = [MemberPart(member) for member in members]
    found = score_combinations([OutputCombination([part], Linear(uniform(1))) for part in parts], task).answers
    for answers, part in zip(found, parts, strict=True):
        alone = StockpotLM([part.module], Linear(uniform(1)), read_tokenizer(Path(part.tokenizer.folder)))
        said = alone.loglikelihood_rolling([i for i in task.questions.instances if i.request_type.endswith("rolling")])
        np.testing.assert_allclose(answers.rolling[0].nats, said, rtol=1e-6)
    assert not np.array_equal(found[0].rolling[0].nats, found[1].rolling[0].nats)
