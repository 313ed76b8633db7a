"""Draft and revise against a plain loop; a stage that fails on a document is recorded there, and the rest goes on."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.lm import revision
from harness.lm.evaluation import score_combinations
from harness.systems.fitting import uniform
from harness.systems.parts import MemberPart
from harness.systems.revision import TEMPLATE, revise
from harness.systems.rules import Linear
from harness.systems.systems import OutputCombination, load_combination
from harness.systems.written import Revision
from harness.types import Ingredients, NotApplicable, Pool, Unscored
from tests.lm.written_tasks import alone, architecture_for, first_letter, passages, plainly, trained_parts

AGAIN = "{answer}{question}"


@pytest.fixture(scope="module")
def parts(task):
    """Two: a drafter and a reviser."""
    return trained_parts(task, 2)


def shorter(task, part, context):
    """The same member, which takes fewer tokens."""
    return MemberPart(replace(part.member, architecture=architecture_for(task, context), digest=f"short {context}"))


def by_hand(task, drafter, reviser, rounds, template, until, most):
    """Of each document: the answers after each round, and how often each model wrote."""
    answers, calls = [], []
    for each in passages():
        own, written = [plainly(task, [drafter], each["context"], alone, until=until, most=most)[0]], [1, 0]
        for _ in range(rounds):
            if not own[-1].strip() or (len(own) > 1 and own[-1] == own[-2]):
                own.append(own[-1])
                continue
            prompt = template.split("{answer}")
            prompt = own[-1].join(piece.replace("{question}", each["context"]) for piece in prompt)
            text = plainly(task, [reviser], prompt, alone, until=until, most=most)[0]
            written[1] += 1
            own.append(text if text.strip() else own[-1])
        answers.append(own)
        calls.append(written)
    return answers, np.array(calls)


@pytest.mark.parametrize("name", ["letters", "stops"])
@pytest.mark.parametrize("other", [False, True], ids=["itself", "another"])
def test_every_round_is_that_of_a_plain_loop(loaded, parts, name, other):
    task = loaded(name)
    given = task.questions.prompts[0].args[1]
    chosen = parts if other else parts[:1]
    answers, calls = by_hand(task, chosen[0], chosen[-1], 3, AGAIN, given["until"], given["max_gen_toks"])
    found = score_combinations([Revision(chosen, rounds=3, template=AGAIN)], task)
    wrote = found.wrote[0]
    assert [text for (text,) in wrote.texts] == [own[-1] for own in answers]
    assert found.calls[0].tolist() == (calls if other else calls.sum(axis=1, keepdims=True)).tolist()
    assert len(set(found.calls[0].sum(axis=1))) > 1  # some are done earlier
    for number, told in enumerate(wrote.record["rounds"]):
        right = [first_letter(own[number]) == each["letter"] for own, each in zip(answers, passages(), strict=True)]
        assert wrote.measures[f"exact_match,first,round_{number}/{name}"].tolist() == right
        assert told["accuracy"] == pytest.approx(np.mean(right))
        if number:
            changed = [own[number] != own[number - 1] for own in answers]
            assert told["changed"] == pytest.approx(np.mean(changed))
            assert told["calls"] >= wrote.record["rounds"][number - 1]["calls"]
    assert wrote.record["rounds"][-1]["calls"] == pytest.approx(calls.sum(axis=1).mean())
    assert found.answers[0].log_probs.argmax(axis=1).tolist() == right


def test_no_round_is_the_output_of_one_shot(task, parts):
    one = OutputCombination(parts[:1], Linear(uniform(1)))
    drafted, plain = score_combinations([Revision(parts, rounds=0, template=AGAIN), one], task).wrote
    assert drafted.texts == plain.texts
    assert drafted.tokens.tolist() == plain.tokens.tolist()
    assert drafted.calls.tolist() == [[1, 0]] * 24
    assert [each["round"] for each in drafted.record["rounds"]] == [0]


def test_what_fails_is_recorded_by_stage_and_the_run_goes_on(loaded, parts):
    """Prompts too long for the drafter or the reviser, and empty answers; all other documents are as without these."""
    task = loaded("stops")
    words = [len(task.questions.prompts[row].args[0]) for row in range(3)]
    assert words == [60] * 3
    plain = score_combinations([Revision(parts, rounds=2, template=AGAIN)], task).wrote[0]
    lengths = sorted(len(text) for text in _tokens(task))
    limits = lengths[18] + 4, lengths[12] + 4  # of the drafter, and of the reviser, who is shown an answer besides
    short = [shorter(task, part, limit) for part, limit in zip(parts, limits, strict=True)]
    wrote = score_combinations([Revision(short, rounds=2, template=AGAIN)], task).wrote[0]
    failed = {each["document"]: each for each in wrote.record["failed"]}
    drafts = [each for each in failed.values() if each["stage"] == "draft" and "tokens" in each["reason"]]
    assert len(drafts) == sum(length > lengths[18] for length in lengths) > 0
    later = [each for each in failed.values() if each["stage"] == "round 1" and "the model takes" in each["reason"]]
    assert later
    assert wrote.record["failures"]["draft"] == sum(each["stage"] == "draft" for each in failed.values())
    ids = task.documents.ids
    for row, document in enumerate(ids):
        if document not in failed:
            assert wrote.texts[row] == plain.texts[row]
        elif failed[document] in drafts:
            assert wrote.texts[row] == [""]
            assert wrote.calls[row].tolist() == [0, 0]
        elif failed[document]["stage"] == "round 1":
            assert wrote.texts[row][0].strip()
    empty = [each["document"] for each in plain.record["failed"] if each["reason"] == "the answer is empty"]
    assert empty
    assert len(empty) == sum(plain.record["failures"].values())


def _tokens(task):
    from harness.models.tokens import read_tokenizer

    words = read_tokenizer(task.tokenizer)
    return [words.encode(prompt.args[0]) for prompt in task.questions.prompts]


def test_braces_in_a_question_or_an_answer_are_text(parts):
    made = Revision(parts, rounds=1, template="{question}|{answer}|{other}|{question}")
    assert made.prompt("{answer}", "{question} {}") == "{answer}|{question} {}|{other}|{answer}"


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=2, max_size=40))
def test_harm_and_gain_are_told_apart_by_the_interval(values):
    class Plain:
        clusters = ()

    class Asked:
        documents = Plain

    found = revision._difference(np.array(values), Asked)
    assert found["value"] == pytest.approx(np.mean(values))
    known = found["low"] is not None
    if known:
        assert found["low"] <= found["value"] + 1e-12
        assert found["high"] >= found["value"] - 1e-12
    expected = "harm" if known and found["high"] < 0 else "gain" if known and found["low"] > 0 else "unclear"
    assert found["verdict"] == expected


def test_a_round_that_does_harm_is_shown_as_harm(task, parts, monkeypatch):
    """A reviser that knows nothing, on drafts most of which are right."""
    right = {each["context"]: each["letter"] for each in passages()}
    answers = revision.Answered

    class Knowing:
        def __init__(self, lm, asked):
            self.lm, self.asked, self.too_long = lm, asked, {}

        def answers(self, rows):
            return [[revision.Written(right[self.asked(row)[0]], (-0.1,))] for row in rows]

    from harness.lm.writing import Writing

    writing, real = Writing(task), Writing.writer

    def writer(self, parts, rule=None, *, whole=True):
        made = real(self, parts, rule, whole=whole)
        return made if whole or parts[0].name == "m1" else Knowing(made.lm, made.asked)

    monkeypatch.setattr(Writing, "writer", writer)
    found = writing.answer(Revision(parts, rounds=1, template=AGAIN))
    assert isinstance(found, answers)
    draft, round_1 = found.record["rounds"]
    assert draft["accuracy"] == 1
    assert round_1["against_draft"]["verdict"] == round_1["against_the_round_before"]["verdict"] == "harm"
    assert round_1["against_draft"]["value"] == pytest.approx(round_1["accuracy"] - 1)


def test_several_answers_are_not_revised(loaded, parts):
    (found,) = score_combinations([Revision(parts, rounds=1, template=AGAIN)], loaded("several")).answers
    assert isinstance(found, Unscored)
    assert "asks for several of each document" in str(found)


def test_saved_and_loaded_it_is_the_same(tmp_path, parts):
    Revision(parts, rounds=2, template="ä {answer}\n").save(tmp_path)
    again = load_combination(tmp_path, Pool("main", "independent", tuple(part.member for part in parts)))
    assert (again.rounds, again.template) == (2, "ä {answer}\n")
    assert [part.digest for part in again.parts()] == ["m0", "m1"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": 7}, "there is no member 7"),
        ({"reviser": 2}, "there is no member 2"),
        ({"rounds": 5}, "written again 4 times at most"),
        ({"template": "{question}"}, "has no {answer}"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_revised_says_why(task, parts, changes, words):
    pool = Pool("main", "independent", tuple(part.member for part in parts))
    ingredients = Ingredients(pool, task.train, task.heldout, None, 0, frozenset({"members"}))
    given = {"model": 0, "reviser": None, "rounds": 2}
    made = revise(ingredients, **given)
    assert (made.rounds, made.template, [part.name for part in made.parts()]) == (2, TEMPLATE, ["m0"])
    assert [part.name for part in revise(ingredients, **{**given, "reviser": 1}).parts()] == ["m0", "m1"]
    with pytest.raises(NotApplicable, match=words):
        revise(ingredients, **{**given, **changes})
