"""Claims about merged and upcycled experts, on runs that were made up."""

import pytest

from tests.report.planted import BASE, BETTER, CLOSE, WORSE, claim, claims, planted

UPCYCLED = "Upcycled experts beat the dense model that is trained on as long"
MERGED = "Merged experts beat the soup of the same fine-tunes"
DENSE, MIXTURE = "other:upcycle/experts=1,k=1,steps=9", "other:upcycle/k=2,steps=9"
SOUP, EXPERTS = "other:uniform_soup/members=0+2", "other:expert_merge/gate=trained,members=0+2"
VERDICTS = pytest.mark.parametrize(
    ("outcome", "verdict"),
    [(BETTER, "held"), (WORSE, "not held"), (CLOSE, "undecided"), (BASE, "not held")],
    ids=["better", "worse", "unclear", "equal"],
)


def said(evidence):
    return {found.claim for found in claims(evidence)}


@VERDICTS
@pytest.mark.parametrize(
    ("sentence", "mixture", "other"), [(UPCYCLED, MIXTURE, DENSE), (MERGED, EXPERTS, SOUP)], ids=["upcycled", "merged"]
)
def test_it_goes_by_the_difference_and_tells_what_it_costs(sentence, mixture, other, outcome, verdict):
    found = claim(sentence, planted({"best_single": WORSE, mixture: outcome, other: BASE}, flops={mixture: 250.0}))
    assert found.verdict == verdict
    assert found.estimate == pytest.approx(outcome.mean() - BASE.mean())
    assert found.statistic == f"accuracy of {mixture} minus {other}, points"
    assert found.note.startswith("at 2.50 times the FLOPs; by NLL")


@pytest.mark.parametrize(
    ("sentence", "variants"),
    [
        (UPCYCLED, ["other:upcycle/k=2,steps=8", DENSE]),
        (UPCYCLED, ["upcycle/k=2,steps=9", DENSE]),
        (UPCYCLED, [DENSE]),
        (MERGED, ["other:expert_merge/members=0+1", SOUP]),
        (MERGED, ["other:expert_merge", SOUP]),
        (MERGED, ["expert_merge/members=0+2", SOUP]),
    ],
)
def test_where_more_differs_nothing_is_said(sentence, variants):
    assert sentence not in said(planted({"best_single": WORSE, **dict.fromkeys(variants, BASE)}))


def test_a_trained_router_is_what_merging_is_judged_by():
    outcomes = {"best_single": WORSE, "other:expert_merge/members=0+2": WORSE, EXPERTS: BETTER, SOUP: BASE}
    assert claim(MERGED, planted(outcomes)).verdict == "held"
