"""Held-out and test: every row in one of them, rows that ask the same together, equal shares of every class."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import BadInput
from harness.imports.splitting import split_rows

ROWS = st.integers(4, 60).flatmap(
    lambda count: st.tuples(
        st.lists(st.integers(0, count - 1), min_size=count, max_size=count),
        st.lists(st.sampled_from("abc"), min_size=count, max_size=count),
        st.lists(st.sampled_from(["x", "y"]), min_size=count, max_size=count),
    )
)
NAMES = ("group", "label", "stratum")


def questions(columns):
    index = [f"row {row}" for row in range(len(columns[0]))]
    return pd.DataFrame({name: [str(each) for each in of] for name, of in zip(NAMES, columns, strict=True)}, index)


@given(ROWS, st.floats(0.1, 0.9), st.integers(0, 3))
def test_groups_stay_together_and_shares_are_kept_to_within_one(columns, share, seed):
    table = questions(columns)
    groups = table.drop_duplicates("group")
    wanted = len(groups) * share
    try:
        heldout = split_rows(table, share, seed, "here")
    except BadInput:
        assert round(wanted) in (0, len(groups)) or len(groups) < 2
        return
    assert (heldout == split_rows(table, share, seed, "here")).all()
    assert not set(table["group"][heldout]) & set(table["group"][~heldout])
    of_groups = heldout[[table.index.get_loc(name) for name in groups.index]]
    assert abs(of_groups.sum() - wanted) <= 0.5 + 1e-9
    for _, stratum in groups.assign(heldout=of_groups).groupby(["stratum", "label"]):
        assert abs(stratum["heldout"].sum() - len(stratum) * share) <= 1 + 1e-9


def test_other_seeds_draw_other_rows():
    table = pd.DataFrame({"label": ["a", "b"] * 50}, index=[str(row) for row in range(100)])
    draws = {tuple(split_rows(table, 0.3, seed, "here")) for seed in range(5)}
    assert len(draws) == 5
    assert {int(np.sum(each)) for each in draws} == {30}


def test_the_sources_own_splits_are_kept_and_not_drawn_anew():
    table = pd.DataFrame({"split": ["test", "heldout", "test"]}, index=list("abc"))
    assert split_rows(table, None, 0, "here").tolist() == [False, True, False]
    with pytest.raises(BadInput, match="says itself"):
        split_rows(table, 0.5, 0, "here")


def test_too_few_rows_for_two_splits_are_refused():
    with pytest.raises(BadInput, match="leave the heldout split empty"):
        split_rows(pd.DataFrame({"label": ["a"]}, index=["x"]), 0.3, 0, "here")
