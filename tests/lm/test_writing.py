"""Answers in writing: lm-eval's own evaluation gives every combination the same scores, and so does a plain loop."""

import lm_eval
import numpy as np
import pytest
import torch
from lm_eval.tasks import TaskManager

from harness.lm import lm_eval_model
from harness.lm.evaluation import score_combinations
from harness.lm.lm_eval_model import StockpotLM
from harness.models.architectures import build
from harness.models.tokens import read_tokenizer
from harness.models.weights import module_with
from harness.systems.dropout import DropoutPass
from harness.systems.fitting import uniform
from harness.systems.parts import MemberPart
from harness.systems.rules import Linear, LogLinear
from harness.systems.systems import OutputCombination, SingleModel
from harness.types import Member, Unscored
from tests.lm.written_tasks import alone, architecture_for, first_letter, mean, passages, plainly, product


def alone_of(part):
    return OutputCombination([part], Linear(uniform(1)))


def merged_of(task, parts):
    weights = {name: sum(part.member.weights[name] for part in parts) / len(parts) for name in parts[0].member.weights}
    return SingleModel(architecture_for(task), module_with(architecture_for(task), weights))


def combinations_of(task, parts):
    return [
        alone_of(parts[0]),
        OutputCombination(parts, Linear(uniform(3))),
        OutputCombination(parts[1:], LogLinear(uniform(2))),
        merged_of(task, parts),
    ]


def theirs(folder, task, combination, *names):
    """lm-eval's own evaluation of our model."""
    rule = combination.rule if isinstance(combination, OutputCombination) else Linear(uniform(1))
    model = StockpotLM([part.module for part in combination.parts()], rule, read_tokenizer(task.tokenizer))
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return lm_eval.simple_evaluate(model, tasks=list(names), task_manager=manager, bootstrap_iters=0, log_samples=True)


@pytest.mark.parametrize(
    ("names", "which"),
    [(("letters",), slice(None)), (("drawn", "letters"), slice(1)), (("choices", "chrf"), slice(1, 2))],
)
def test_each_has_the_scores_that_lm_eval_gives_it(folder, loaded, parts, names, which):
    task = loaded(*names)
    combinations = combinations_of(task, parts)[which]
    for combination, answers in zip(combinations, score_combinations(combinations, task).answers, strict=True):
        expected = theirs(folder, task, combination, *names)
        for name in names:
            for key, score in expected["results"][name].items():
                metric, _, chosen = key.partition(",")
                if chosen and not metric.endswith("_stderr"):
                    place = f"{metric}/{name}" if chosen == "none" else f"{key}/{name}"
                    assert answers.scores[place] == pytest.approx(score, rel=1e-12), place
            for sample in expected["samples"][name]:
                place = "exact_match/" if sample["filter"] == "none" else f"exact_match,{sample['filter']}/"
                if "exact_match" in sample:
                    assert answers.metrics[place + name][sample["doc_id"]] == sample["exact_match"]


@pytest.fixture(scope="module")
def found(task, parts):
    return score_combinations(combinations_of(task, parts), task)


def test_a_plain_loop_gives_the_same_answers(task, parts, found):
    mixes = [(parts[:1], alone), (parts, mean), (parts[1:], product)]
    for (own, mix), answers, wrote in zip(mixes, found.answers, found.wrote, strict=False):
        said = [plainly(task, own, each["context"], mix) for each in passages()]
        assert [texts for (texts,) in wrote.texts] == [written for written, _ in said]
        right = [first_letter(written) == each["letter"] for (written, _), each in zip(said, passages(), strict=True)]
        assert answers.log_probs.argmax(axis=1).tolist() == right
        assert 0 < sum(right) < len(right)
        assert wrote.tokens.tolist() == [len(own) * len(values) for _, values in said]


def test_what_is_scored_are_right_and_wrong_answers(task, parts, found):
    documents = task.documents
    assert documents.written
    assert documents.labels.tolist() == [1] * 24
    assert documents.classes == 2
    for answers, calls, combination in zip(found.answers, found.calls, combinations_of(task, parts), strict=True):
        assert np.isin(answers.log_probs, (0, -np.inf)).all()
        right = answers.log_probs.argmax(axis=1)
        assert right.tolist() == answers.metrics["exact_match,first/letters"].tolist()
        assert calls.tolist() == [[1] * len(combination.parts())] * 24


def test_beside_choices_written_answers_are_scores_of_their_own(loaded, parts):
    task = loaded("choices", "letters")
    assert not task.documents.written
    assert set(task.documents.tasks) == {"choices"}
    found = score_combinations([alone_of(parts[0])], task)
    assert found.answers[0].log_probs.shape == (24, 3)
    assert np.isfinite(found.answers[0].log_probs).all()
    assert found.wrote[0].measures["generated_tokens/letters"].min() >= 1
    apart = score_combinations([alone_of(parts[0])], loaded("letters")).answers[0]
    assert found.answers[0].metrics["exact_match,first/letters"].tolist() == apart.log_probs.argmax(axis=1).tolist()


def test_what_is_drawn_depends_on_nothing_that_is_asked_beside_it(loaded, parts):
    """Neither on the tasks before it, nor on how many documents there are, nor on their order."""
    together, apart = (
        score_combinations([alone_of(parts[0])], loaded(*names)).wrote[0].texts
        for names in (("letters", "drawn"), ("drawn",))
    )
    assert together[24:] == apart
    assert all(len(texts) == 3 for texts in apart)
    assert any(len(set(texts)) == 3 for texts in apart)
    prompts = loaded("drawn").questions.prompts
    model = StockpotLM([parts[0].module], Linear(uniform(1)), read_tokenizer(loaded("drawn").tokenizer))
    backwards = model.generate_until([prompt for prompt in prompts[::-1][:7] for _ in range(3)], disable_tqdm=True)
    assert backwards == [text for texts in apart[::-1][:7] for text in texts]


def test_where_memory_is_short_the_answers_are_the_same_and_who_was_short_of_it_is_told(
    task, parts, found, monkeypatch
):
    plain = lm_eval_model.write

    def write(models, rule, prompts, *arguments, **options):
        if len(models) == 3 and len(prompts) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(models, rule, prompts, *arguments, **options)

    monkeypatch.setattr(lm_eval_model, "write", write)
    short = score_combinations(combinations_of(task, parts), task)
    assert [each.texts for each in short.wrote] == [each.texts for each in found.wrote]
    assert [each.halved for each in found.wrote] == [None] * 4
    longest = max(len(read_tokenizer(task.tokenizer).encode(each["context"])) for each in passages()) + 6
    assert [each.halved and each.halved <= 5 * longest for each in short.wrote] == [None, True, None, None]


def test_who_cannot_write_says_why_and_the_others_have_their_scores(task, parts):
    short = SingleModel(architecture_for(task, context=16), build(architecture_for(task, context=16)))
    broken = merged_of(task, parts)
    next(broken.module.parameters()).data.fill_(torch.nan)
    other = Member("other", parts[1].member.architecture, parts[1].member.weights, "", 0, {}, "other", None)
    dropped = OutputCombination([DropoutPass(parts[0], index, 1) for index in range(2)], Linear(uniform(2)))
    strange = OutputCombination([parts[0], MemberPart(other)], Linear(uniform(2)))
    asked = [short, broken, dropped, strange, alone_of(parts[0])]
    reasons = [str(each) for each in score_combinations(asked, task).answers[:4] if isinstance(each, Unscored)]
    assert "24 of 24 prompts are too long" in reasons[0]
    assert "the model takes 16" in reasons[0]
    assert "not finite" in reasons[1]
    assert "draws anew for every batch" in reasons[2]
    assert "a sequence-level mixture has no next token" in reasons[3]
    assert not isinstance(score_combinations(asked, task).answers[4], Unscored)
