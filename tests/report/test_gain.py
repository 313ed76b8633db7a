"""The first figure: one mark for a method, intervals that can be seen, and names that lie on nothing."""

import math

import pytest

from harness.report.plots import gain as plots
from harness.report.plots.labels import name_marks
from harness.report.plots.style import render
from tests.report.compared import gained, planted, right

BASE = right(0.8, 1)
SOUP, MORE = gained(BASE, 0.02, 2), gained(BASE, 0.05, 3)
FAR = gained(BASE, -0.5, 4)
OUTCOMES = {"best_single": BASE, "uniform_soup": SOUP, "linear": gained(BASE, -0.01), "linear/weights=learned": MORE}
COSTS = {"linear": 8, "linear/weights=learned": 8, "run:linear": 3}


def evidence(more=(), **given):
    return planted(OUTCOMES | dict(more), costs=COSTS, **given)


def test_each_method_has_one_mark_its_best_variant():
    found = plots.marks(evidence())
    assert [mark.variant for mark in found.shown] == ["linear/weights=learned", "uniform_soup"]
    assert [mark.cost for mark in found.shown] == [8, 1]
    assert found.hidden == found.others == []
    assert "One mark for each method of the main pool: its best variant" in plots.gain_caption(evidence())


def test_what_is_far_below_is_listed_and_does_not_set_the_scale():
    near, far = plots.marks(evidence()), plots.marks(evidence({"distill": FAR}))
    assert [mark.variant for mark in far.hidden] == ["distill"]
    assert far.scale.low == pytest.approx(near.scale.low, rel=0.05)
    assert (far.scale.high, len(far.shown)) == (pytest.approx(near.scale.high), 2)
    assert "Not drawn, far below: distill −50.00 points." in plots.gain_caption(evidence({"distill": FAR}))
    (note,) = [text.get_text() for text in plots.gain(evidence({"distill": FAR})).texts]
    assert "distill" in note


def test_other_pools_are_against_their_own_reference():
    found = plots.marks(evidence({"run:best_single": MORE, "run:linear": gained(MORE, 0.01)}))
    (other,) = found.others
    assert other.gain.value == pytest.approx(0.01, abs=0.001)
    assert other.gain.against == "run:best_single"
    assert other.cost == 3
    assert plots.marks(evidence({"run:linear": MORE}, version=1)).others == []  # there they are against the main one's


def test_up_is_better_whatever_the_score():
    for score in ("accuracy", "nll"):
        found = plots.marks(evidence({"distill": gained(BASE, -0.01, 9)}, score=score))
        gains = {mark.variant: mark.gain.value for mark in (*found.shown, *found.hidden)}
        assert gains["uniform_soup"] > 0 > gains["distill"]
    assert "(up is better)" in plots.gain(evidence(score="nll")).axes[0].get_ylabel()


def test_intervals_and_the_zero_line_are_in_sight():
    axes = plots.gain(evidence({"distill": FAR})).axes[0]
    low, high = axes.get_ylim()
    assert low < 0 < high
    widths = [100 * (mark.gain.high - mark.gain.low) for mark in plots.marks(evidence()).shown]
    assert max(widths) / (high - low) > 1 / 12


@pytest.mark.parametrize("make", [plots.gain, plots.gain_narrow])
def test_both_forms_can_be_drawn(make):
    files = render(make(evidence({"distill": FAR, "member/index=0": BASE})))
    assert files["svg"].startswith(b"<?xml")
    assert files["png"].startswith(b"\x89PNG")
    assert render(make(evidence({"distill": FAR, "member/index=0": BASE}))) == files
    assert make(planted({"best_single": BASE})) is None


def test_names_lie_on_no_other_and_on_no_mark():
    more = {name: gained(BASE, share, seed) for seed, (name, share) in enumerate(
        {"distill": 0.021, "moe": 0.019, "greedy_soup": 0.018, "log_linear": 0.049}.items(), 20)}  # fmt: skip
    found = plots.marks(evidence(more))
    axes = plots.gain(evidence(more)).axes[0]
    for text in list(axes.texts):
        text.remove()
    step = 0.02
    groups = plots._side_by_side(found.shown, step)
    named = [plots._named(evidence().score, mark, x, upright=False)
             for group, places in groups for mark, x in zip(group, places, strict=True)]  # fmt: skip
    boxes = name_marks(axes, named)
    assert len(boxes) == len(found.shown)
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    marks = axes.transData.transform([(mark.x, mark.value) for mark in named])
    assert not any(box.contains(*mark) for box in boxes for mark in marks)


def test_marks_of_one_cost_stand_side_by_side_around_it():
    found = plots.marks(evidence({"distill": SOUP, "greedy_soup": MORE}))
    (row, places), (alone, place) = plots._side_by_side(found.shown, 0.02)
    assert len(row) == 3
    assert math.prod(places) == pytest.approx(1.0)
    assert places == sorted(places)
    assert (len(alone), place) == (1, [pytest.approx(8)])
