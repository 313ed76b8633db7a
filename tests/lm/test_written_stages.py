"""Staged systems that answer in writing, against a plain loop: who answers, what is written, what ran for it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.lm.evaluation import score_combinations
from harness.systems.acceptance import Confidence, Margin
from harness.systems.fitting import uniform
from harness.systems.rules import Linear
from harness.systems.staged import Staged
from harness.systems.systems import OutputCombination, load_combination
from harness.systems.text_acceptance import LeastToken, accepts_texts
from harness.types import Pool, Unscored
from tests.lm.written_tasks import alone, first_letter, mean, passages, plainly


def mean_of(*parts):
    return OutputCombination(parts, Linear(uniform(len(parts))))


def middle(values):
    """Half of the documents reach it, and none is near it."""
    ordered = np.sort(values)
    place = max(range(8, 16), key=lambda place: ordered[place] - ordered[place - 1])
    return float(ordered[place] + ordered[place - 1]) / 2


@pytest.mark.parametrize(("accept", "least"), [(Confidence, np.mean), (LeastToken, np.min)], ids=["mean", "least"])
def test_every_answer_is_that_of_a_plain_loop(task, parts, accept, least):
    """The first model; where it is not certain of its own words the second; then both together, which write anew."""
    first = [plainly(task, parts[:1], each["context"], alone) for each in passages()]
    thresholds = [middle([np.exp(least(values)) for _, values in first])]
    second = [plainly(task, parts[1:2], each["context"], alone) for each in passages()]
    thresholds.append(middle([np.exp(least(values)) for _, values in second]))
    right, texts, calls, tokens = [], [], [], []
    for row, each in enumerate(passages()):
        called, spent = [1, 0], len(first[row][1])
        text, values = first[row]
        if np.exp(least(values)) < thresholds[0]:
            text, values = second[row]
            called, spent = [1, 1], spent + len(values)
            if np.exp(least(values)) < thresholds[1]:
                text, values = plainly(task, parts[:2], each["context"], mean)
                called, spent = [2, 2], spent + 2 * len(values)
        texts.append(text)
        right.append(first_letter(text) == each["letter"])
        calls.append(called)
        tokens.append(spent)
    system = Staged([mean_of(parts[0]), mean_of(parts[1]), mean_of(*parts[:2])], [accept(at) for at in thresholds])
    found = score_combinations([system], task)
    assert [text for (text,) in found.wrote[0].texts] == texts
    assert found.answers[0].log_probs.argmax(axis=1).tolist() == right
    assert found.calls[0].tolist() == calls
    assert found.wrote[0].tokens.tolist() == tokens
    assert {tuple(each) for each in calls} == {(1, 0), (1, 1), (2, 2)}
    shares = [each["share"] for each in found.wrote[0].record["stages"]]
    assert shares == [np.mean([each == stop for each in calls]) for stop in ([1, 0], [1, 1], [2, 2])]


def test_accepting_always_is_the_first_stage_and_never_the_last_at_the_summed_cost(task, parts):
    stages = [mean_of(parts[0]), mean_of(parts[1])]
    systems = [Staged(stages, [Confidence(threshold)]) for threshold in (0.0, 1.1)]
    found = score_combinations([*stages, *systems], task)
    for stage in (0, 1):
        assert found.wrote[2 + stage].texts == found.wrote[stage].texts
        assert found.answers[2 + stage].scores == found.answers[stage].scores
    assert found.wrote[2].tokens.tolist() == found.wrote[0].tokens.tolist()
    assert found.wrote[3].tokens.tolist() == (found.wrote[0].tokens + found.wrote[1].tokens).tolist()
    assert [calls.sum(axis=1).tolist() for calls in found.calls[2:]] == [[1] * 24, [2] * 24]


def test_a_higher_threshold_never_lowers_the_cost(task, parts):
    stages = [mean_of(parts[0]), mean_of(parts[1])]
    systems = [Staged(stages, [Confidence(threshold)]) for threshold in np.linspace(0.2, 0.9, 6)]
    calls = [each.sum() for each in score_combinations(systems, task).calls]
    assert calls == sorted(calls)
    assert calls[0] < calls[-1]


def test_one_threshold_decides_on_choices_and_on_what_is_written(loaded, parts):
    """Each task by its own answers; what counts is the documents with choices."""
    system = Staged([mean_of(parts[0]), mean_of(parts[1])], [Confidence(0.55)])
    beside = score_combinations([system], loaded("choices", "letters"))
    apart = [score_combinations([system], loaded(name)) for name in ("choices", "letters")]
    assert beside.calls[0].tolist() == apart[0].calls[0].tolist()
    for found in apart:
        for place, score in found.answers[0].scores.items():
            assert beside.answers[0].scores[place] == score
    assert beside.wrote[0].texts == apart[1].wrote[0].texts
    assert "stages" in apart[1].wrote[0].record
    assert "stages" not in beside.wrote[0].record  # the shares are of choices there


@pytest.mark.parametrize(
    ("names", "accept", "words"),
    [
        (["letters"], Margin(0.5), "Margin decides by the probabilities of classes"),
        (["several"], Confidence(0.5), "asks for several of each document"),
        (["choices"], LeastToken(0.5), "classes have no tokens"),
    ],
    ids=["margin", "several", "choices"],
)
def test_what_cannot_be_decided_says_why(loaded, parts, names, accept, words):
    system = Staged([mean_of(parts[0]), mean_of(parts[1])], [accept])
    (found,) = score_combinations([system], loaded(*names)).answers
    assert isinstance(found, Unscored)
    assert words in str(found)


TEXTS = st.lists(st.lists(st.floats(-20, 0), min_size=1, max_size=6), min_size=1, max_size=5)


@given(TEXTS, st.floats(0, 1.1))
def test_certainty_is_what_a_text_of_equal_tokens_has(texts, threshold):
    """Of equal tokens mean and least are the one probability; a threshold of 0 accepts everything."""
    for accept in (Confidence, LeastToken):
        equal = [[each[0]] * len(each) for each in texts]
        expected = [bool(np.exp(each[0]) >= threshold) for each in texts]
        near = [abs(np.exp(each[0]) - threshold) < 1e-9 for each in texts]
        found = accepts_texts(accept(threshold), equal).tolist()
        assert all(one == other or close for one, other, close in zip(found, expected, near, strict=True))
        assert accepts_texts(accept(0.0), texts).all()
        assert not accepts_texts(accept(1.1), texts).any()
    assert (accepts_texts(LeastToken(threshold), texts) <= accepts_texts(Confidence(threshold - 1e-9), texts)).all()


def test_saved_and_loaded_it_decides_alike(tmp_path, parts):
    Staged([mean_of(parts[0]), mean_of(parts[1])], [LeastToken(0.3)]).save(tmp_path)
    pool = Pool("main", "independent", tuple(part.member for part in parts))
    assert load_combination(tmp_path, pool).accept == (LeastToken(0.3),)
