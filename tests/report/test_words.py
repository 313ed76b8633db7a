"""Variants in the words of prose."""

import pytest

from harness.report.words import in_words
from tests.report.planted import BASE, planted


@pytest.mark.parametrize(
    ("name", "words"), [("restorer", "single model 'restorer'"), ("m1", "single model at position one")]
)
def test_a_member_is_called_by_its_own_name_if_it_has_one(name, words):
    evidence = planted({"best_single": BASE, "member/index=1": BASE})
    members = [{"name": "m0"}, {"name": name}]
    evidence.run.record["pools"]["main"] |= {"members": 2, "seeds": {"0": {"members": members}}}
    assert in_words(evidence, evidence.by_name["member/index=1"]) == words
