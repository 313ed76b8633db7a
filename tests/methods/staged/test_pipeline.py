"""The methods pipeline and refine on pools of texts: their laws, what they choose, and what does not apply."""

import pytest
import torch

from harness.checks import laws
from harness.checks.pools import plain_predict
from harness.evaluate.restoring import SHARES
from harness.registry import METHODS
from harness.systems.fitting import accuracy, nll
from harness.systems.parts import MemberPart
from harness.systems.pipeline import Pipeline
from harness.systems.rules import Stacked
from harness.systems.stacking import fit_stacking
from harness.systems.systems import OutputCombination
from harness.types import Ingredients, NotApplicable, Pool, Split
from tests.models.classifier_folders import batch_of, text
from tests.systems.restorers import SAID, place, pool, split

CASES = [
    ("refine", {"rounds": 0}),
    ("refine", {"rounds": 2, "share": 0.3}),
    ("pipeline", {"stages": [0, 1], "last": "logistic"}),
    ("pipeline", {"stages": [2, 1]}),
]
NOT_OF_TEXTS = {
    "calls_add_up_to_the_cost_that_is_reported",  # its hook looks for inputs without names: see tests/systems
    "other_architectures_work_or_say_why",  # the two architectures are of images
    "of_answers_it_says_whether_they_are_enough",  # a masked language model gives less than answers
}


@pytest.fixture
def on_texts(monkeypatch):
    """The laws of methods, on a pool of a masked language model and two classifiers of texts."""

    def pool_of(method, count=3):
        return pool() if count == 3 else Pool("main", "independent", pool().members[:count])

    for module in ("pools", "methods", "lacking"):
        monkeypatch.setattr(f"harness.checks.{module}.split", lambda name: split(name))
        if module != "pools":
            monkeypatch.setattr(f"harness.checks.{module}.pool_for", pool_of)


@pytest.mark.parametrize(
    "law", [each for each in laws("method") if each.__name__ not in NOT_OF_TEXTS], ids=lambda law: law.__name__
)
@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_laws(on_texts, name, parameters, law):
    law(METHODS.get(name), parameters)


def build(name, members=None, heldout=None, **parameters):
    method = METHODS.get(name)
    given = Ingredients(members or pool(), split("train"), heldout or split("heldout"), plain_predict, 5, method.needs)
    return method.apply(given, method.validate(parameters))


def said(combination, of="test"):
    return plain_predict(combination, split(of))


def test_refine_is_the_pipeline_of_its_model_and_its_reader():
    for rounds, share in ((0, 0.0), (3, 0.25)):
        one = build("refine", reader=2, rounds=rounds, share=share)
        other = build("pipeline", stages=[0, 2], rounds=rounds, share=share)
        assert torch.equal(said(one), said(other))


def test_a_pipeline_of_one_member_is_that_member():
    assert torch.equal(said(build("pipeline", stages=[2])), said(MemberPart(pool().members[2])))


@pytest.mark.parametrize("stages", [[1], [0, 1]])
def test_a_logistic_last_stage_is_the_stacked_model_of_what_the_stages_before_say(stages):
    before, heldout = build("pipeline", stages=stages), split("heldout")
    generator = torch.Generator().manual_seed(5)
    rule, *_ = fit_stacking(said(before, "heldout").unsqueeze(0), heldout.labels, generator)
    found = build("pipeline", stages=stages, last="logistic")
    torch.testing.assert_close(said(found), rule(said(before).unsqueeze(0)))
    assert nll(said(found, "heldout"), heldout.labels) < nll(said(before, "heldout"), heldout.labels)


def test_an_identity_last_stage_leaves_what_the_stages_before_it_say():
    before = build("pipeline", stages=[0, 1])
    zeros, ones = torch.zeros(1, 3, 3), torch.ones(1)
    part = before.last.parts()[0]
    after = Pipeline(before.stages, OutputCombination([part], Stacked(ones, zeros, torch.zeros(3))), 3)
    torch.testing.assert_close(said(after), said(before))


def test_the_share_is_the_best_on_held_out():
    made = build("refine", rounds=1, share="heldout")
    curve = {share: accuracy(said(build("refine", rounds=0, share=share), "heldout"), split("heldout").labels)
             for share in SHARES}  # fmt: skip
    assert {at["share"]: at["accuracy"] for at in made.details["heldout"]} == pytest.approx(curve)
    assert curve[made.details["share"]] == max(curve.values())
    assert made.stages[0].share == made.details["share"]


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("refine", {"model": 1, "reader": 2}, "member m1 is a classifier: it has no text to revise"),
        ("refine", {"model": 0, "reader": 0}, "m0 gives text and no class"),
        ("refine", {"reader": 7}, "there is no member 7: the pool has 3"),
        ("pipeline", {"stages": [1, 0]}, "the last stage says the class, and member m0 gives text and no class"),
        ("pipeline", {"stages": [1, 2, 1]}, "one stage can hand its class on"),
        ("linear", {}, "m0 gives text and no class, and linear needs probabilities"),
        ("best_single", {}, "m0 gives text and no class, and best_single needs correctness"),
        ("uniform_soup", {}, "m0 gives text and no class, and so would what uniform_soup makes of it"),
    ],
)
def test_what_does_not_apply_says_why(name, parameters, words):
    with pytest.raises(NotApplicable, match=words):
        build(name, **parameters)


def test_texts_without_any_mask_and_no_share_leave_nothing_to_restore():
    heldout = split("heldout")
    plain = batch_of([text(each.replace("_", "day")) for each in SAID], place())
    count = len(SAID)
    unmarked = Split("heldout", plain, heldout.labels[:count], heldout.ids[:count], "none", kind="texts")
    with pytest.raises(NotApplicable, match=r"no held-out text has m0's mask '\[MASK\]' in it, and share is 0"):
        build("refine", heldout=unmarked)
    assert isinstance(build("refine", heldout=unmarked, share=0.2), Pipeline)


def test_a_soup_of_masked_language_models_gives_text_and_does_not_apply():
    both = Pool("main", "independent", (pool().members[0], pool().members[0]))
    with pytest.raises(NotApplicable, match="gives text and no class"):
        build("uniform_soup", both)
