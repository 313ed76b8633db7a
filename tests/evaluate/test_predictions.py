"""What is kept of a part's predictions: numbers, or nothing."""

import math

import pytest
import torch

from harness.checks.pools import independent, split
from harness.evaluate.predictions import CachedPredictions
from harness.store import Store
from harness.systems.parts import MemberPart


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["heldout", "test"])
def test_predictions_that_are_no_numbers_are_told_and_not_kept(tmp_path, monkeypatch, value, name):
    part, given = MemberPart(independent(1).members[0]), split(name)
    right = part.log_probs

    def broken(batch):
        found = right(batch)
        found[-1, 0] = value
        return found

    cached = CachedPredictions(Store(tmp_path), "cpu")
    monkeypatch.setattr(part, "log_probs", broken)
    with pytest.raises(ValueError, match=f"{part.name} gives numbers that are none .* examples of {name}"):
        cached(part, given)
    assert Store(tmp_path).folders() == []


def test_a_class_that_is_ruled_out_is_a_number(tmp_path, monkeypatch):
    part, given = MemberPart(independent(1).members[0]), split("test")
    monkeypatch.setattr(part, "log_probs", lambda batch: torch.tensor([[0.0, -math.inf]]).expand(len(batch), 2))
    assert CachedPredictions(Store(tmp_path), "cpu")(part, given).shape == (len(given.inputs), 2)
