"""Self-consistency against a plain loop and against lm-eval's own majority vote."""

from collections import Counter

import lm_eval
import numpy as np
import pytest
import torch
from lm_eval.tasks import TaskManager

from harness.lm.evaluation import score_combinations
from harness.lm.generation_request import Written, stream_of
from harness.lm.lm_eval_model import StockpotLM
from harness.lm.sampling import likeliest, majority
from harness.models.tokens import read_tokenizer
from harness.systems.fitting import uniform
from harness.systems.rules import Linear
from harness.systems.systems import OutputCombination, load_combination
from harness.systems.written import SelfConsistency
from harness.types import Pool, Unscored
from tests.lm.written_tasks import alone, first_letter, passages, plainly, trained_parts

HOW = {"temperature": 0.9, "top_p": 0.95, "seed": 0}


@pytest.fixture(scope="module")
def part(task):
    return trained_parts(task, 1)[0]


def drawer(part, n, by="majority", **changes):
    return SelfConsistency([part], n=n, by=by, **{**HOW, **changes})


def answers_by_hand(task, part, prompt, n):
    """The first n answers to a prompt: the nucleus of the tempered probabilities, one random number for each token."""
    found = []
    for k in range(n):
        stream = torch.Generator().manual_seed(hash((HOW["seed"], stream_of(prompt, k))) % 2**63)

        def draw(log_probs, stream=stream):
            chances = (log_probs / HOW["temperature"]).softmax(-1)
            order = chances.argsort(descending=True, stable=True)
            before = chances[order].cumsum(0) - chances[order]
            chances[order[before >= HOW["top_p"]]] = 0
            rising = chances.cumsum(0)
            point = torch.rand(1, generator=stream, dtype=torch.float64) * rising[-1]
            return int(torch.searchsorted(rising, point, right=True))

        found.append(plainly(task, [part], prompt, alone, draw))
    return found


@pytest.fixture(scope="module")
def by_hand(task, part):
    return [answers_by_hand(task, part, each["context"], 7) for each in passages()]


@pytest.mark.parametrize("n", [1, 4, 7])
@pytest.mark.parametrize("by", ["majority", "log_probability"])
def test_scores_are_those_of_a_plain_loop(task, part, by_hand, n, by):
    found = score_combinations([drawer(part, n, by)], task)
    chosen = []
    for drawn in by_hand:
        letters = [first_letter(text) for text, _ in drawn[:n]]
        most = Counter(letters).most_common(1)[0][0]
        means = [np.mean(values) for _, values in drawn[:n]]
        chosen.append(drawn[letters.index(most) if by == "majority" else int(np.argmax(means))][0])
    assert [text for (text,) in found.wrote[0].texts] == chosen
    right = [first_letter(text) == each["letter"] for text, each in zip(chosen, passages(), strict=True)]
    assert found.answers[0].log_probs.argmax(axis=1).tolist() == right
    assert found.answers[0].scores["exact_match,first/letters"] == pytest.approx(np.mean(right))
    assert found.calls[0].tolist() == [[n]] * 24
    assert found.wrote[0].tokens.tolist() == [sum(len(values) for _, values in drawn[:n]) for drawn in by_hand]


def test_a_vote_is_that_of_lm_evals_own_filter(folder, loaded, task, part):
    """``repeats`` and ``majority_vote`` in the task file give one member the score that n answers of it have."""
    model = StockpotLM([part.module], Linear(uniform(1)), read_tokenizer(task.tokenizer))
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    theirs = lm_eval.simple_evaluate(model, tasks=["voted"], task_manager=manager, bootstrap_iters=0, log_samples=True)
    expected = [sample["exact_match"] for sample in theirs["samples"]["voted"]]
    assert 0 < sum(expected) < 24
    found = score_combinations([drawer(part, 7)], task).answers[0]
    assert found.metrics["exact_match,first/letters"].tolist() == expected
    in_suite = score_combinations([OutputCombination([part], Linear(uniform(1)))], loaded("voted"))
    assert in_suite.answers[0].metrics["exact_match,maj@7/voted"].tolist() == expected
    assert in_suite.calls[0].tolist() == [[7]] * 24


def test_what_is_drawn_depends_on_the_prompt_and_the_seed_only(task, part):
    """Neither on n, nor on the batch, nor on what is asked beside it; another seed draws other answers."""
    one, four, other = score_combinations([drawer(part, 1), drawer(part, 4), drawer(part, 1, seed=5)], task).wrote
    assert one.texts == score_combinations([drawer(part, 1)], task).wrote[0].texts
    assert one.texts != other.texts
    prompts = task.questions.prompts[:5]
    model = StockpotLM([part.module], Linear(uniform(1)), read_tokenizer(task.tokenizer), batch_tokens=1)
    how = {"do_sample": True, "temperature": HOW["temperature"], "top_p": HOW["top_p"], "top_k": 0}
    asked = [(prompt.args[0], {**prompt.args[1], **how}) for prompt in prompts[::-1]]
    assert [written.text for written in model.write(asked, [0] * 5)][::-1] == [text for (text,) in one.texts[:5]]
    assert four.record["votes"]["mean_share_of_the_answer"] >= 0.25
    assert one.record["votes"]["mean_share_of_the_answer"] == 1


def test_the_first_of_equals_counts():
    assert majority(["b", "a", "a", "b"]) == 0
    assert majority(["c", "a", "b", "b", "a"]) == 1
    texts = [Written("", (-1.0, -2.0)), Written("", (-1.5,)), Written("", (-0.5, -2.5, -3.0))]
    assert likeliest(texts) == 0


def test_where_nothing_is_to_be_written_or_the_task_draws_itself_it_is_refused(loaded, part):
    for names, words in ((["choices"], "answers in writing"), (["choices", "letters"], "answers in writing"),
                         (["voted"], "asks for several answers of each document")):  # fmt: skip
        (found,) = score_combinations([drawer(part, 2)], loaded(*names)).answers
        assert isinstance(found, Unscored)
        assert words in str(found)


def test_of_texts_to_predict_it_says_nothing_and_of_the_rest_what_it_says_alone(loaded, task, part):
    member = OutputCombination([part], Linear(uniform(1)))
    found, other = score_combinations([drawer(part, 3), member], loaded("letters", "texts")).answers
    assert (len(found.rolling), len(other.rolling)) == (0, 1)
    assert found.scores == score_combinations([drawer(part, 3)], task).answers[0].scores


def test_saved_and_loaded_it_is_the_same(tmp_path, part):
    made = drawer(part, 5, "log_probability")
    made.save(tmp_path)
    again = load_combination(tmp_path, Pool("main", "independent", (part.member,)))
    assert again.describe() == made.describe()
    assert again.parts()[0].member is part.member
