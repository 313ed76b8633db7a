"""Language models are scored together; what is wrong with one combination is nothing to the others."""

from itertools import combinations
from types import SimpleNamespace

import pytest

from harness.errors import BadInput
from harness.kinds import text
from harness.registry import KINDS
from harness.types import NotApplicable, Unscored

TASK = SimpleNamespace(questions=None)


@pytest.fixture
def passes(monkeypatch):
    """The passes that are run: one of all combinations fails where an error is among them."""
    found = []

    def evaluated(given, task):
        found.append(given)
        for one in given:
            if isinstance(one, Exception):
                raise one
        return [f"scores of {one}" for one in given]

    monkeypatch.setattr(text, "_evaluated", evaluated)
    return found


def scored(given):
    return KINDS.get("text").evaluate(given, TASK, TASK, None)


def test_what_is_well_is_scored_in_one_pass(passes):
    assert scored(["a", "b", "c"]) == ["scores of a", "scores of b", "scores of c"]
    assert passes == [["a", "b", "c"]]


@pytest.mark.parametrize("size", [2, 3, 5, 8])
@pytest.mark.parametrize("error", [BadInput("too long"), NotApplicable("no"), RuntimeError("memory"), ValueError("x")])
def test_each_that_fails_has_its_reason_and_all_others_have_scores(passes, size, error):
    for broken in (pair for count in (1, 2) for pair in combinations(range(size), count)):
        given = [error if place in broken else f"c{place}" for place in range(size)]
        for place, found in enumerate(scored(given)):
            if place in broken:
                assert isinstance(found, Unscored)
                assert str(found) == f"{type(error).__name__}: {error}"
            else:
                assert found == f"scores of c{place}"


def test_one_that_is_alone_fails_with_its_own_error(passes):
    with pytest.raises(ValueError, match=r"^it broke$"):
        scored([ValueError("it broke")])


def test_a_fault_of_ours_stops_the_pass(passes):
    with pytest.raises(AssertionError):
        scored(["a", AssertionError()])
    assert len(passes) == 1


def test_what_is_wrong_with_the_task_is_said_once(passes):
    class Broken:
        @property
        def questions(self):
            raise BadInput("no such task")

    with pytest.raises(BadInput, match="no such task"):
        KINDS.get("text").evaluate(["a", "b"], Broken(), Broken(), None)
    assert passes == []
