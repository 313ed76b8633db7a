"""Draws against splitmix64 as it is published, and the laws that masks rely on."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.streaming.draws import STRIDE, key, uniform
from tests.examples import examples


def splitmix64(state, count):
    """The published generator, on Python's integers: a state that grows by the stride, and is mixed."""
    for _ in range(count):
        state = (state + STRIDE) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        yield z ^ (z >> 31)


def test_the_words_are_those_that_others_publish():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert list(splitmix64(1234567, 4)) == published
    assert uniform(1234567, 0, 4).tolist() == [(word >> 40) / 2**24 for word in published]


@examples(50)
@given(st.integers(0, 2**64 - 1), st.integers(0, 300))
def test_each_draw_is_a_word_of_the_generator(start, count):
    found = uniform(start, 0, count)
    assert found.dtype == np.float32
    assert found.tolist() == [(word >> 40) / 2**24 for word in splitmix64(start, count)]


@examples(50)
@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 40_000), min_size=1, max_size=4))
def test_pieces_are_cut_from_one_sequence(of, sizes):
    starts = np.cumsum([0, *sizes])
    pieces = [uniform(of, int(start), size) for start, size in zip(starts, sizes, strict=False)]
    assert np.array_equal(np.concatenate(pieces), uniform(of, 0, sum(sizes)))


def test_a_draw_far_away_needs_none_before_it():
    far = 10**15
    state = (77 + far * STRIDE) % 2**64
    assert uniform(77, far, 3).tolist() == [(word >> 40) / 2**24 for word in splitmix64(state, 3)]


def test_the_key_is_the_start_of_a_digest_of_what_the_draws_belong_to():
    text = b'[3,"a model","model.layers.0.weight"]'
    assert key(3, "a model", "model.layers.0.weight") == int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
    keys = [key(*of) for of in ((0, "m", "w"), (1, "m", "w"), (0, "n", "w"), (0, "m", "v"), (0, "mw", ""))]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("of", [0, 1, 2**64 - 1, key(0, "m", "w")])
def test_draws_are_uniform_and_those_of_neighbours_independent(of):
    drawn = uniform(of, 0, 40_000).astype(float)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    table = np.histogram2d(drawn[:-1:2], drawn[1::2], bins=8, range=[[0, 1], [0, 1]])[0]
    expected = 20_000 / 64
    assert ((table - expected) ** 2 / expected).sum() < 103.4  # chi-squared with 63 degrees of freedom: 0.1 % beyond


def test_draws_of_other_keys_are_others():
    first, second = uniform(key(0, "m", "w"), 0, 1000), uniform(key(0, "n", "w"), 0, 1000)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.12
