"""The claim about systems that call a stronger model for some examples."""

import numpy as np
import pytest

from harness.evaluate.families import Family
from harness.evaluate.operating import Point
from harness.evaluate.quality_cost import quality_cost
from harness.report.curve_claims import knows_when
from tests.report.compared import gained, planted, right

BASE = right(0.8, 1)
STRONG = gained(gained(BASE, 0.12, 2), -0.02, 3)
RNG = np.random.default_rng(5)


def dial(name, doubt):
    """A router that calls the strong model where this is greatest."""
    weak, strong = BASE.astype(float), STRONG.astype(float)
    points = []
    for share in (0.2, 0.5, 0.8):
        called = (doubt >= np.quantile(doubt, 1 - share)).astype(float)
        points.append(Point.of(f"{share}", np.where(called, strong, weak), 1 + 4 * called, called))
    return Family(name, tuple(points), Point.of("best_single", weak, 1), Point.of("linear", strong, 4))


def evidence(*added):
    found = planted({"best_single": BASE, "linear": STRONG}, costs={"linear": 4})
    found.run.__dict__["curves"] = quality_cost(found.run, added)
    return found


CHANCE = RNG.random(BASE.shape)
KNOWS = CHANCE - 0.5 * BASE
MISLEADS = CHANCE + 0.5 * BASE


@pytest.mark.parametrize(("doubt", "verdict"), [(KNOWS, "held"), (CHANCE, "undecided"), (MISLEADS, "not held")])
def test_a_router_is_held_against_a_random_one(doubt, verdict):
    found = knows_when(evidence(dial("routers", doubt)))
    assert found.verdict == verdict
    assert found.low < found.estimate < found.high
    assert (found.low < 0.5 < found.high) == (verdict == "undecided")
    assert found.n == BASE.size


def test_of_several_the_first_is_judged_whichever_is_best_and_the_others_are_in_the_note():
    for first, second, verdict in ((CHANCE, KNOWS, "undecided"), (KNOWS, CHANCE, "held")):
        found = knows_when(evidence(dial("mine", first), dial("other", second)))
        assert found.statistic.startswith("mine: ")
        assert found.note.startswith("other 0.")
        assert found.verdict == verdict


def test_without_such_a_system_it_is_not_tested():
    assert knows_when(planted({"best_single": BASE})).verdict == "not tested"
    assert "no cascade or router" in knows_when(evidence()).note
    alike = Family("routers", dial("", KNOWS).points, Point.of("a", BASE, 1), Point.of("b", BASE, 4))
    assert knows_when(evidence(alike)).note == "the strong model is no better than the weak one"
