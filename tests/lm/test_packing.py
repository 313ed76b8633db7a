"""Rows hold every sequence once, each token sees exactly its own sequence, and what is shared is run once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.lm.packing import LONGEST_TREE, batches, common_length, lay_out
from tests.examples import examples

few = examples(60)
sequences_of_few_tokens = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple), min_size=1, max_size=12
)
layouts = st.fixed_dictionaries(
    {"packed": st.booleans(), "width": st.sampled_from([1, 4, 64]), "longest": st.integers(1, 60)}
)


@few
@given(sequences_of_few_tokens, layouts)
def test_every_sequence_is_on_one_path_and_sees_itself_only(sequences, how):
    rows = lay_out(sequences, **how)
    assert sorted(index for row in rows for index in row.paths) == list(range(len(sequences)))
    for row in rows:
        allowed = row.allowed()
        for index, path in row.paths.items():
            assert tuple(np.asarray(row.tokens)[path]) == sequences[index]
            assert np.asarray(row.depths)[path].tolist() == list(range(len(path)))
            for depth, slot in enumerate(path):
                assert np.flatnonzero(allowed[slot]).tolist() == sorted(path[: depth + 1])


@few
@given(sequences_of_few_tokens, layouts)
def test_a_plain_row_is_its_longest_sequence(sequences, how):
    for row in lay_out(sequences, **how):
        if not row.is_tree:
            longest = max(row.paths, key=lambda index: len(sequences[index]))
            assert tuple(row.tokens) == sequences[longest]
            assert all(path.tolist() == list(range(len(path))) for path in row.paths.values())
            assert np.array_equal(row.allowed(), np.tri(len(row), dtype=bool))
        else:
            assert how["packed"]
            assert len(row) <= how["longest"]


@few
@given(sequences_of_few_tokens, layouts)
def test_never_more_tokens_than_alone_and_equal_ones_run_once(sequences, how):
    rows = lay_out(sequences, **how)
    assert sum(map(len, rows)) <= sum(map(len, sequences))
    again = lay_out([*sequences, *sequences], **how)
    assert [row.tokens for row in again] == [row.tokens for row in rows]


def test_choices_share_their_context_and_contexts_do_not_mix():
    one, other = tuple(range(50)), tuple(range(100, 140))
    sequences = [(*context, choice, choice + 1) for choice in (200, 300, 400) for context in (one, other)]
    rows = lay_out(sequences, packed=True, width=64, longest=4096)
    assert sorted(map(len, rows)) == [40 + 6, 50 + 6]
    assert all(row.is_tree for row in rows)


def test_a_sequence_and_its_beginnings_need_no_tree():
    (row,) = lay_out([(1, 2, 3, 4), (1, 2), (1, 2, 3)], packed=False, width=64, longest=4096)
    assert row.tokens == [1, 2, 3, 4]
    assert not row.is_tree


def test_a_tree_stops_growing_where_its_attention_costs_more_than_it_saves():
    sequences = [(*range(40), *range(1000 * n, 1000 * n + 40)) for n in range(1, 200)]
    rows = lay_out(sequences, packed=True, width=64, longest=LONGEST_TREE)
    assert 1 < len(rows) < len(sequences)
    assert len(lay_out(sequences, packed=True, width=4096, longest=LONGEST_TREE)) < len(rows)


@few
@given(sequences_of_few_tokens, st.integers(1, 40))
def test_batches_hold_every_row_once_and_no_more_tokens_than_they_may(sequences, tokens):
    rows = lay_out(sequences, packed=True, width=4, longest=40)
    found = list(batches(rows, tokens))
    assert sorted(id(row) for batch in found for row in batch) == sorted(map(id, rows))
    for batch in found:
        assert len({row.is_tree for row in batch}) == 1
        assert len(batch) == 1 or len(batch) * max(map(len, batch)) <= tokens


@pytest.mark.parametrize(
    ("one", "other", "length"), [((), (1,), 0), ((1, 2), (1, 2), 2), ((1, 2, 3), (1, 2), 2), ((1, 2), (2, 2), 0)]
)
def test_common_length(one, other, length):
    assert common_length(one, other) == common_length(other, one) == length
