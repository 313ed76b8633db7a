"""The sections on quality against cost and on equal compute: tables, sentences and the picture."""

import pytest

from harness.evaluate.families import Family
from harness.evaluate.operating import Point
from harness.evaluate.quality_cost import quality_cost as record
from harness.evaluate.ways import CASCADES
from harness.report.equal_compute import equal_compute
from harness.report.plots import quality_cost as plots
from harness.report.plots.style import render
from harness.report.quality_cost import quality_cost
from tests.report.compared import gained, planted, right

BASE = right(0.8, 1)
LITTLE, MORE, MOST = gained(BASE, 0.02, 3), gained(BASE, 0.04, 4), gained(BASE, 0.08, 5)
OUTCOMES = {"best_single": BASE, "member/index=0": gained(BASE, -0.02, 6), "member/index=1": BASE,
            "linear/members=0+1": LITTLE, "linear": MORE, "uniform_soup": LITTLE, "distill": BASE}  # fmt: skip
COSTS = {"linear/members=0+1": 2, "linear": 8}
CALLED = right(0.5, 9).astype(float)


def evidence(more=(), *, costs=(), added=(), **given):
    """Of a run that has curves.json."""
    found = planted(OUTCOMES | dict(more), costs=COSTS | dict(costs), **given)
    found.run.__dict__["curves"] = record(found.run, added)
    return found


def router():
    weak, strong = BASE.astype(float), MORE.astype(float)
    point = Point.of("half", strong * CALLED + weak * (1 - CALLED), 1 + 7 * CALLED, CALLED)
    return Family(CASCADES, (point,), Point.of("best_single", weak, 1), Point.of("linear", strong, 8))


def test_a_row_for_each_way_with_its_best_and_its_mean():
    told = quality_cost(evidence())
    rows = {row[0]: dict(zip(told.columns, row, strict=True)) for row in told.rows}
    assert list(rows) == ["single models", "ensembles", "merged models", "students"]
    ensembles = rows["ensembles"]
    assert (ensembles["points"], ensembles["cost"]) == ("2", "2.00× – 8.00×")
    assert ensembles["best accuracy"] == f"{100 * MORE.mean():.2f} % at 8.00×"
    assert ensembles["gain over your best single model"].startswith("+2.")
    assert rows["merged models"]["cost"] == "1.00×"
    assert rows["merged models"]["mean accuracy (AIQ)"].startswith(f"{100 * LITTLE.mean():.2f} % [")
    assert rows["students"]["gain over your best single model"] == "+0.00"
    assert "all budgets from 1.00× to 8.00×" in told.words
    (oracle,) = told.notes
    assert "cheapest of the 2 single models that is right" in oracle
    assert "which, it would have" in oracle


def test_systems_of_two_models_have_columns_of_their_own():
    assert "APGR" not in quality_cost(evidence()).columns
    told = quality_cost(evidence(added=[router()]))
    assert told.columns[-2:] == ("APGR", "CPT(80 %)")
    cells = {row[0]: row[-2:] for row in told.rows}
    assert cells["ensembles"] == ("–", "–")
    assert cells["cascades"][0].startswith("0.")
    assert "a random router has 0.5" in told.notes[0]


def test_a_loss_gains_where_it_falls():
    told = quality_cost(evidence(score="nll"))
    rows = {row[0]: row for row in told.rows}
    assert rows["ensembles"][-1].startswith("+0.")
    assert "best NLL" in told.columns


def test_a_run_without_curves_has_neither_section_nor_picture():
    old = planted(OUTCOMES, costs=COSTS)
    old.run.__dict__["curves"] = None
    assert quality_cost(old) is equal_compute(old) is plots.quality_cost(old) is None


# equal compute


def table(told):
    return {way: [cell and (cell.variant, cell.again) for cell in cells] for way, cells in told.rows}


def test_the_best_of_each_way_is_told_once():
    told = equal_compute(evidence())
    assert told.budgets == ("1×", "2×", "4×", "8×")
    assert table(told) == {
        "N models × 1 pass": [None, ("linear/members=0+1", False), ("linear/members=0+1", True), ("linear", False)],
        "one merged model": [("uniform_soup", False)] + 3 * [("uniform_soup", True)],
        "one student": [("distill", False)] + 3 * [("distill", True)],
    }
    (ensembles, *_) = (cells for way, cells in told.rows if way.startswith("N models"))
    assert ensembles[3].gain == "+4.00"
    assert ensembles[3].verdict == "better"
    assert "holds for all variants of the run at once" in told.words


def test_the_dearest_way_is_called_best_where_it_is_shown_to_be_better_than_all():
    answer = equal_compute(evidence({"linear": MOST})).answer
    assert answer.startswith("With up to eight times the FLOPs, N models × 1 pass (linear) is best: +8.0 points of")
    assert "points more than one merged model (uniform_soup) at the cost of one model" in answer


def test_a_cheap_way_that_no_dearer_one_is_shown_to_beat_is_named():
    answer = equal_compute(evidence({"linear": gained(BASE, 0.022, 8)})).answer
    assert answer.startswith("One merged model (uniform_soup) at the cost of one model: +2.0 points of accuracy over")
    assert answer.endswith("and no other way is shown to gain more with up to eight times the FLOPs.")
    answer = equal_compute(evidence({"uniform_soup": MOST})).answer
    assert answer.endswith("more than any other way does with up to eight times the FLOPs.")


def test_what_is_unclear_is_not_told():
    same = {"linear": BASE, "linear/members=0+1": BASE, "uniform_soup": BASE}
    assert equal_compute(evidence(same)).answer == ""  # nothing beats the reference
    # the dearest is shown to be better than the cheap one, but not than all
    unclear = {"linear": MOST, "distill": gained(BASE, 0.078, 5), "uniform_soup": LITTLE}
    assert equal_compute(evidence(unclear, costs={"distill": 4})).answer == ""


def test_a_gain_in_a_loss_is_told_as_a_fall():
    answer = equal_compute(evidence({"linear": MOST}, score="nll")).answer
    assert "NLL lower by 0.1" in answer


# the picture


@pytest.mark.parametrize(
    ("make", "score"), [(plots.quality_cost, "accuracy"), (plots.quality_cost_narrow, "nll")]
)
def test_the_picture_is_the_same_for_the_same_run_and_up_is_better(make, score):
    found = evidence(score=score, added=[router()])
    figure = make(found)
    axes = figure.axes[0]
    bottom, top = axes.get_ylim()
    assert (top > bottom) == (score == "accuracy")
    assert "(up is better)" in axes.get_ylabel()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["single models", "ensembles", "merged models", "students", "cascades", "best of each budget",
                      "chosen at random"]  # fmt: skip
    assert render(figure) == render(make(found))


def test_marks_of_one_cost_stand_side_by_side_and_intervals_are_those_of_differences():
    found = evidence()
    axes = plots.quality_cost(found).axes[0]
    marks = {}
    for line in axes.lines:
        if line.get_marker() not in ("", "None"):
            marks.setdefault(line.get_marker(), []).append((float(line.get_xdata()[0]), float(line.get_ydata()[0])))
    (soup,), (student,), singles = marks["^"], marks["D"], marks["s"]
    assert len({x for x, _ in (soup, student, *singles)}) == 3
    assert all(0.7 < x < 1.4 for x, _ in (soup, student, *singles))
    assert soup[1] == pytest.approx(100 * LITTLE.mean())
    heights = [abs(line.get_ydata()[1] - line.get_ydata()[0]) for line in axes.lines
               if len(line.get_xdata()) == 2 and line.get_xdata()[0] == soup[0]]  # fmt: skip
    gain = found.gain("uniform_soup")
    grain = 2 / BASE.size  # which the table's intervals reach farther
    assert heights == [pytest.approx(100 * (gain.high - gain.low - grain))]


def test_what_is_far_below_is_counted_and_an_oracle_far_above_is_named():
    found = evidence({"distill": gained(BASE, -0.5, 12)})
    figure = plots.quality_cost(found)
    assert "1 far below not drawn." in [text.get_text() for text in figure.texts]
    far = {f"member/index={at}": gained(gained(BASE, 0.15, at), -0.15, 9 + at) for at in range(4)}
    words = [text.get_text() for text in plots.quality_cost(evidence(far)).axes[0].texts]
    assert any(text.startswith("▲ oracle: ") for text in words)
    assert any(text.startswith("your best single model: ") for text in words)


def test_settings_that_are_no_variants_are_dots_without_bars():
    found = evidence({"cascade": LITTLE}, costs={"cascade": 3}, added=[router()])
    lines = plots.quality_cost(found).axes[0].lines
    assert [line.get_marker() for line in lines].count(".") == 1
    (large,) = [line for line in lines if line.get_marker() == "P"]
    assert large.get_xdata()[0] == pytest.approx(3)
    assert "Dots: other settings" in plots.quality_cost_caption(found)
    assert "Dots" not in plots.quality_cost_caption(evidence())


def test_one_point_is_no_picture():
    found = planted({"best_single": BASE})
    found.run.__dict__["curves"] = record(found.run)
    assert plots.quality_cost(found) is None
    assert [row[0] for row in quality_cost(found).rows] == ["single models"]


def test_the_caption_says_what_is_drawn():
    caption = plots.quality_cost_caption(evidence())
    assert caption.startswith("Accuracy on test against the FLOPs of one example, main pool.")
    assert "between your best single model and linear" in caption
