"""Windows as lm-eval cuts them, and the mixture of whole continuations."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from harness.errors import BadInput
from harness.lm.rolling import windows
from harness.lm.sequence import sequence_mixture
from harness.systems.systems import SEQUENCE_LEVEL
from tests.examples import examples

few = examples(100)


@few
@given(st.integers(0, 40), st.integers(1, 15))
def test_windows_are_those_of_lm_eval(count, length):
    tokens = list(range(1, count + 1))
    theirs = get_rolling_token_windows(token_list=tokens, prefix_token=0, max_seq_len=length, context_len=1)
    expected = [(tuple(context), tuple(rest)) for context, rest in map(make_disjoint_window, theirs)]
    assert [(window.context, window.continuation) for window in windows(tokens, 0, length)] == expected


@few
@given(st.integers(0, 40), st.integers(1, 15))
def test_every_token_is_predicted_once_and_windows_fit(count, length):
    found = list(windows(range(1, count + 1), 0, length))
    assert [token for window in found for token in window.continuation] == list(range(1, count + 1))
    assert all(len(window.context) + len(window.continuation) <= length + 1 for window in found)


def test_sequences_mix_as_whole_probabilities():
    log_likelihoods = torch.tensor([[-1.0, -700.0], [-2.0, -900.0], [-math.inf, -800.0]], dtype=torch.float64)
    found = sequence_mixture(log_likelihoods, torch.tensor([0.5, 0.3, 0.2]))
    assert found[0] == pytest.approx(math.log(0.5 * math.exp(-1) + 0.3 * math.exp(-2)))
    assert found[1] == pytest.approx(math.log(0.5) - 700)


def test_one_member_with_all_the_weight_is_itself_bit_for_bit():
    log_likelihoods = torch.randn(3, 50, dtype=torch.float64)
    assert torch.equal(sequence_mixture(log_likelihoods, torch.tensor([0.0, 1.0, 0.0])), log_likelihoods[1])


def test_it_is_not_the_token_level_mixture_and_never_better_than_its_best_member():
    log_likelihoods = -10 * torch.rand(3, 50, dtype=torch.float64)
    found = sequence_mixture(log_likelihoods, torch.full((3,), 1 / 3))
    assert (found <= log_likelihoods.max(dim=0).values + 1e-12).all()
    assert (found >= log_likelihoods.max(dim=0).values - math.log(3) - 1e-6).all()


@pytest.mark.parametrize(
    ("weights", "problem"), [([0.5, 0.5], "2 weights"), ([0.5, 0.2, 0.2], "simplex"), ([1.5, -0.5, 0.0], "simplex")]
)
def test_weights_that_make_no_mixture(weights, problem):
    with pytest.raises(BadInput, match=f"{SEQUENCE_LEVEL}: .*{problem}"):
        sequence_mixture(torch.zeros(3, 4), torch.tensor(weights))
