"""What the report tells of what methods found out."""

import pytest

from harness.report.document import _learned
from tests.report.test_report import planted, right

TOLD = {
    "weights": ([0.5, 0.25], "weights = [0.5, 0.25]"),
    "scale": (0.3, "scale = 0.3"),
    "anything": ({"m0": 3}, "anything = m0: 3"),
    "groups": ({"layers": {"head": 0.5}}, "groups = layers: head: 0.5"),
}
NOT_TOLD = {
    "curve": [{"a": 0.0, "nll": 1.0}],
    "paths": {"before": [{"a": 0.0, "nll": 1.0}]},
    "warnings": ["a sentence"],
    "search_seconds": 3.0,
    "gram_bytes": 7,
    "long": list(range(1000)),
    "empty": "",
}


def lines(details):
    return _learned(planted({"linear": right(0.8, 0)}, details={"linear": {"0": details}}))


@pytest.mark.parametrize(("name", "value", "words"), [(name, *told) for name, told in TOLD.items()])
def test_whatever_a_method_tells_is_told(name, value, words):
    assert lines({name: value, **NOT_TOLD}) == [("linear", words)]


@pytest.mark.parametrize("name", NOT_TOLD)
def test_curves_and_what_building_took_are_not(name):
    assert lines({name: NOT_TOLD[name]}) == []
