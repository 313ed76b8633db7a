"""Certainties against float64 by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.systems.acceptance import Acceptance, Agreement, Certain, Confidence, Entropy, Margin

KINDS = (Confidence, Margin, Entropy, Agreement)


def by_hand(kind, log_probs, models):
    found = []
    for row, logs in enumerate(log_probs):
        p = np.exp(logs)
        ordered = np.sort(p)[::-1]
        entropy = -sum(x * math.log(x) for x in p if x > 0)
        found.append(
            {
                Confidence: ordered[0],
                Margin: ordered[0] - ordered[1],
                Entropy: 1 - entropy / math.log(len(p)),
                Agreement: np.mean([model[row].argmax() == logs.argmax() for model in models]),
            }[kind]
        )
    return found


SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(2, 4))
LOGITS = arrays(np.float64, SHAPES, elements=st.floats(-9, 9))


@pytest.mark.parametrize("kind", KINDS)
@given(logits=LOGITS)
def test_certainties_are_those_by_hand_and_between_0_and_1(kind, logits):
    models = torch.log_softmax(torch.from_numpy(logits), dim=-1)
    stage = torch.logsumexp(models, dim=0) - math.log(len(models))
    found = kind.certainty(stage, models)
    np.testing.assert_allclose(found.numpy(), by_hand(kind, stage.numpy(), models.numpy()), atol=1e-12)
    assert (found >= -1e-12).all()
    assert (found <= 1 + 1e-12).all()


@pytest.mark.parametrize("kind", KINDS)
def test_zero_accepts_all_and_above_one_none(kind):
    models = torch.log_softmax(torch.randn(3, 20, 4, generator=torch.Generator().manual_seed(1)), dim=-1)
    assert kind(0.0)(models[0], models).all()
    assert not kind(1.1)(models[0], models).any()
    assert Acceptance.restore(kind(0.25).describe()) == kind(0.25)


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_without_probability_and_one_class_alone(kind):
    sure = torch.tensor([[0.0, -math.inf]])
    assert kind.certainty(sure, sure.unsqueeze(0)).tolist() == [1.0]
    only = torch.zeros(2, 1)
    assert kind.certainty(only, only.unsqueeze(0)).tolist() == [1.0, 1.0]


def test_all_have_thresholds():
    assert all(issubclass(kind, Certain) for kind in KINDS)
