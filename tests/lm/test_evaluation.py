"""Many combinations in one pass over an lm-eval task: each has the scores that lm-eval gives it alone."""

from pathlib import Path

import lm_eval
import numpy as np
import pytest
import torch
from lm_eval.tasks import TaskManager

from harness.combinations import (
    DropoutPass,
    MemberPart,
    OutputCombination,
    SingleModel,
    StochasticNetwork,
    has_dropout,
)
from harness.combining import Contrast, Linear, LogLinear
from harness.fitting import uniform
from harness.lm.evaluation import Unscored, measures, score_combinations
from harness.lm.lm_eval_model import StockpotLM
from harness.models.architectures import build
from harness.models.causal_lm import architecture_of
from harness.models.weights import module_with
from harness.store import Store
from harness.tasks import text
from harness.tasks.task import TaskReference
from harness.types import Architecture, Member

TASKS = ("cloze_python", "bytes_python")
FOLDER = str(Path(__file__).parents[2] / "suites" / "tasks")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(text, "DOMAINS", {"python": text.DOMAINS["python"]})  # the one that comes with the interpreter
    patch.setattr(text, "TOKENIZER_CHARACTERS", 50_000)
    patch.setattr(text, "WINDOWS", {"train": 20, "heldout": 3, "test": 2})
    patch.setattr(text, "VOCABULARY", 400)
    yield text.load(TaskReference("toy", TASKS, FOLDER), Store(tmp_path_factory.mktemp("store")), limit=12)
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
        alone = StockpotLM([part.module for part in combination.parts()], rule, text.read_tokenizer(task.tokenizer))
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
    architecture = architecture_of(settings)
    torch.manual_seed(0)
    weights = {name: torch.randn_like(t) / 4 for name, t in build(architecture).state_dict().items()}
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
        module = build(architecture_of(settings | {"attention_dropout": rate}))
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


def test_documents_are_labelled_as_lm_eval_labels_them(task):
    documents = task.documents
    assert len(documents.ids) == len(set(documents.ids)) == 12
    assert set(documents.tasks) == {"cloze_python"}
    assert documents.classes == 4


def test_windows_predict_the_next_token(task):
    rows = task.heldout.inputs
    assert task.heldout.labels.tolist() == rows[:, 1:].flatten().tolist()
    assert set(task.heldout.groups) == {"python"}
    words = text.read_tokenizer(task.tokenizer)
    assert words.decode(rows[0]) in "".join(text.split_of("python", "heldout"))
