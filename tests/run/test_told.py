"""The marks of a run's tables, and how much its details may be."""

import json

from hypothesis import given
from hypothesis import strategies as st

from harness.results.columns import paired
from harness.run import told
from harness.run.tables import _mark_pareto
from harness.store import write_json
from tests.examples import examples

VALUES = st.recursive(
    st.none() | st.integers(0, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
)


@given(st.lists(st.dictionaries(st.sampled_from("abcde"), VALUES, max_size=5), min_size=1, max_size=6),
       st.integers(10, 2_000))  # fmt: skip
@examples(60)
def test_details_are_whole_or_say_what_they_lack_and_are_no_longer_than_all_may_be(tmp_path_factory, records, most):
    before, told.ALL = told.ALL, most
    try:
        kept = [told.bounded(each, len(records)) for each in records]
    finally:
        told.ALL = before
    for whole, part in zip(records, kept, strict=True):
        missing = whole.keys() - part.keys()
        assert sorted(missing) == part.pop(told.LEFT_OUT, [])
        assert part == {name: whole[name] for name in part}
        if missing:
            longest = max(len(json.dumps(whole[name], indent=4)) for name in missing)
            assert all(len(json.dumps(value, indent=4)) <= longest + 1 for value in part.values())
    folder = tmp_path_factory.mktemp("details")
    write_json(folder / "details.json", {"v": [part for part in kept if part]})
    assert (folder / "details.json").stat().st_size <= most + 60 * len(records) + 20


def test_what_is_no_longer_than_its_share_is_kept_whole():
    assert told.bounded({"weights": [0.5] * 100, "warnings": ["one"]}, 20_000) == {
        "weights": [0.5] * 100, "warnings": ["one"]
    }  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 5)), max_size=12))
@examples(60)
def test_a_variant_is_on_the_front_unless_another_is_as_good_for_less_or_better_for_as_much(points):
    rows = [{"status": "ok", "accuracy": score / 5} for score, _ in points]
    _mark_pareto(rows, paired()["accuracy"], [cost for _, cost in points])
    known = [(score, cost) for score, cost in points if cost is not None]
    for row, (score, cost) in zip(rows, points, strict=True):
        beaten = cost is None or any(s >= score and c <= cost and (s, c) != (score, cost) for s, c in known)
        assert row["pareto"] is not beaten
