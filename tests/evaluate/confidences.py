"""Answers for tests of what is computed from confidences."""

from hypothesis import strategies as st


def answers_with(edges):
    """Confidences of which many lie on the edges of bins, some twice, each right or wrong."""
    on_edge = st.integers(0, edges).map(lambda k: k / edges)
    return st.lists(st.tuples(on_edge | st.floats(0, 1), st.booleans()), min_size=1, max_size=40)
