"""Joint decisions: differences against scipy and plain numpy, words for them, and the best of all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from harness import stats
from harness.evaluate.decisions import LIKE_THESE, OWN, POOLS, THESE, Scored, best, comparisons, verdict
from harness.registry import METRICS
from harness.results.columns import COMPARISON_COLUMNS
from tests.examples import examples

RIGHT, LOSS = METRICS.get("accuracy").column, METRICS.get("nll").column
WORDS = {"better", "worse", "equivalent", "unclear"}


def compared(column, tables, references=None, pools=None, **more):
    """The rows by variant and scope; every variant is compared with ``ref`` unless it is said otherwise."""
    if references is None:
        references = {name: "ref" for name in tables if name != "ref"}
    rows = list(comparisons(Scored(column, tables, **more), references, pools or {}, "all"))
    assert all(list(row) == list(COMPARISON_COLUMNS) for row in rows)
    found = {(row["variant"], row["scope"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def losses(seed, variants=3, seeds=2, items=60, apart=0.3):
    """Tables by variant: an example's loss is shared, and each seed of each variant adds its own."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(2, 1, size=items)
    names = ["ref", *(f"v{i}" for i in range(1, variants))]
    return {name: shared + rng.normal(rng.normal(scale=0.1), apart, size=(seeds, items)) for name in names}


def answers(gained, lost, items, seeds=1):
    """Right answers of a reference, and of a variant that differs on so many items."""
    variant = np.repeat([1.0, 0.0, 1.0], [gained, lost, items - gained - lost])
    reference = np.repeat([0.0, 1.0, 1.0], [gained, lost, items - gained - lost])
    return {"ref": np.tile(reference, (seeds, 1)), "v": np.tile(variant, (seeds, 1))}


# differences and their intervals


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(30, 90))
@examples(30)
def test_these_models_differ_as_a_paired_t_test_of_the_items_says(seed, seeds, items):
    tables = losses(seed, seeds=seeds, items=items)
    for name, row in ((n, r) for (n, scope), r in compared(LOSS, tables).items() if scope == THESE):
        oracle = scipy_stats.ttest_rel(tables[name].mean(axis=0), tables["ref"].mean(axis=0))
        assert row["difference"] == pytest.approx((tables[name] - tables["ref"]).mean())
        assert (row["low"], row["high"]) == pytest.approx(tuple(oracle.confidence_interval(0.95)))
        assert row["p"] == pytest.approx(oracle.pvalue)
        assert row["p"] <= row["p_adjusted"] <= min(1, 2 * row["p"]) + 1e-12
        assert row["low_together"] <= row["low"] <= row["high"] <= row["high_together"]
        assert (row["against"], row["kind"], row["n"]) == ("ref", OWN, items)


@pytest.mark.parametrize("seeds", [3, 5])
def test_where_seeds_differ_and_items_do_not_models_like_these_go_by_a_t_test_of_the_seeds(seeds):
    rng = np.random.default_rng(0)
    reference = rng.normal(2, 1, size=(seeds, 400))
    table = reference + rng.normal(0.2, 0.1, size=(seeds, 1)) + rng.normal(0, 1e-3, size=(seeds, 400))
    found = compared(LOSS, {"ref": reference, "v": table})["v", LIKE_THESE]
    oracle = scipy_stats.ttest_1samp((table - reference).mean(axis=1), 0)
    assert found["difference"] == pytest.approx((table - reference).mean())
    low, high = oracle.confidence_interval(0.95)
    assert found["high"] - found["low"] == pytest.approx(high - low, rel=0.02)
    assert found["p"] == pytest.approx(oracle.pvalue, rel=0.05)


def test_where_seeds_agree_both_scopes_say_nearly_the_same():
    rng = np.random.default_rng(0)
    reference, change = rng.normal(2, 1, size=400), rng.normal(0.05, 0.2, size=400)
    tables = {"ref": np.tile(reference, (3, 1)), "v": np.tile(reference + change, (3, 1))}
    found = compared(LOSS, tables)
    for end in ("low", "high"):
        assert found["v", LIKE_THESE][end] == pytest.approx(found["v", THESE][end], abs=2e-3)


def test_models_like_these_are_corrected_as_holm_and_bonferroni_do():
    tables = losses(1, variants=5, seeds=3)
    rows = {name: row for (name, scope), row in compared(LOSS, tables).items() if scope == LIKE_THESE}
    means = {name: stats.crossed_mean(tables[name] - tables["ref"]) for name in rows}
    adjusted = stats.holm([row["p"] for row in rows.values()])
    for (name, row), holm in zip(rows.items(), adjusted, strict=True):
        together = means[name].interval(1 - 0.05 / 4)
        assert (row["low_together"], row["high_together"]) == pytest.approx((together.low, together.high))
        assert row["p_adjusted"] >= holm


@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.sampled_from([12, 40, 200]), st.booleans())
@examples(40)
def test_nothing_is_surer_of_models_like_these_than_of_these(seed, seeds, items, right):
    tables = losses(seed, seeds=seeds, items=items)
    if right:
        tables = {name: (table < 3).astype(float) for name, table in tables.items()}
    found = compared(RIGHT if right else LOSS, tables)
    for name in ("v1", "v2"):
        these, like = found[name, THESE], found[name, LIKE_THESE]
        assert like["p"] >= these["p"]
        assert like["p_adjusted"] >= these["p_adjusted"]
        for ends in (("low", "high"), ("low_together", "high_together")):
            low, high = (these[end] for end in ends)
            assert low is None or (like[ends[0]] <= low and high <= like[ends[1]])
        assert like["difference"] == pytest.approx(these["difference"])
        assert (like["margin"], like["n"]) == (these["margin"], these["n"])


def test_one_seed_has_one_scope():
    assert {scope for _, scope in compared(LOSS, losses(0, seeds=1))} == {THESE}


def test_the_order_of_the_variants_is_nothing():
    tables = losses(0, variants=6)
    assert compared(LOSS, dict(reversed(tables.items()))) == compared(LOSS, tables)


def test_seeds_with_examples_of_their_own_are_compared_by_their_means():
    tables = losses(0, seeds=2, items=200)
    for table in tables.values():
        table[0, 80:] = table[1, :60] = np.nan
    found = compared(LOSS, tables)
    for scope in (THESE, LIKE_THESE):
        row = found["v1", scope]
        each = [np.nanmean(table) for table in tables["v1"] - tables["ref"]]
        assert row["difference"] == pytest.approx(np.mean(each))
        assert row["low"] < row["difference"] < row["high"]
        assert row["n"] == 200


def test_a_seed_of_one_example_says_nothing_of_seeds_like_it():
    tables = losses(0, seeds=2, items=40)
    for table in tables.values():
        table[0, 1:] = np.nan
    assert {scope for _, scope in compared(LOSS, tables)} == {THESE}


@pytest.mark.parametrize("items", [0, 1])
def test_a_single_example_is_compared_with_nothing(items):
    assert compared(LOSS, losses(0, items=items)) == {}
    assert best(Scored(LOSS, losses(0, items=items))) is None


def test_clusters_count_as_one_example_each():
    tables = losses(0, items=50)
    copies = {name: np.concatenate([table] * 3, axis=1) for name, table in tables.items()}
    plain = compared(LOSS, tables)
    found = compared(LOSS, copies, clusters=[f"{i % 50:02}" for i in range(150)])
    for key, row in plain.items():
        assert found[key]["n"] == 50
        for name in ("difference", "low", "high", "p"):
            assert found[key][name] == pytest.approx(row[name]), (key, name)


# few examples


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (3, 0), (0, 5), (4, 2)])
def test_a_share_that_few_answers_change_has_the_interval_of_its_score_test(gained, lost):
    found = compared(RIGHT, answers(gained, lost, 500))["v", THESE]
    expected = stats.paired_proportions(gained, lost, 500)
    assert (found["difference"], found["low"], found["high"]) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    exact = stats.mcnemar_exact(*(table[0] for table in answers(gained, lost, 500).values()))
    assert found["p"] >= 0.98 * exact


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.sampled_from([30, 300, 1000]), st.integers(1, 5))
@examples(60)
def test_a_word_about_few_answers_has_an_interval_without_nothing_in_it(seed, seeds, items, variants):
    rng = np.random.default_rng(seed)
    reference = np.tile((rng.random(items) < 0.8).astype(float), (seeds, 1))
    tables = {"ref": reference}
    for name in [f"v{i}" for i in range(variants)]:
        tables[name] = reference.copy()
        for row in tables[name]:
            row[rng.choice(items, size=rng.integers(10), replace=False)] = rng.random() < 0.5
    for (_, scope), row in compared(RIGHT, tables).items():
        if scope == THESE and row["verdict"] in ("better", "worse"):
            assert row["low_together"] > 0 or row["high_together"] < 0
            assert (row["difference"] > 0) == (row["verdict"] == "better")


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_handful_of_equal_answers_proves_nothing_and_thousands_do(seeds):
    for items, word in ((20, "unclear"), (5000, "equivalent")):
        found = compared(RIGHT, answers(0, 0, items, seeds))
        assert {row["verdict"] for row in found.values()} == {word}
        assert len(found) == seeds


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (3, 1)])
def test_few_clusters_that_change_are_few_answers(gained, lost):
    tables = answers(gained, lost, 400)
    thrice = {name: np.repeat(table, 3, axis=1) for name, table in tables.items()}
    found = compared(RIGHT, thrice, clusters=[f"{i // 3:03}" for i in range(1200)])["v", THESE]
    expected = compared(RIGHT, tables)["v", THESE]
    for name in ("difference", "low", "high", "n"):
        assert found[name] == pytest.approx(expected[name]), name


def test_one_large_cluster_decides_nothing():
    sizes = np.repeat(["large", *(f"{i:03}" for i in range(99))], [60, *[1] * 99])
    changed = np.repeat([1.0, 0.0], [60, 99])[None]
    found = compared(RIGHT, {"ref": 0 * changed, "v": changed}, clusters=list(sizes))["v", THESE]
    assert found["difference"] == pytest.approx(60 / 159)
    assert found["low"] < 0 < found["difference"] < found["high"] <= 1
    assert found["verdict"] == "unclear"


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_system_under_two_names_is_equivalent_however_few_examples_there_are(seeds):
    for column, tables in ((RIGHT, answers(0, 0, 20, seeds)), (LOSS, answers(0, 0, 20, seeds))):
        for row in compared(column, tables, same=["v"]).values():
            assert [row[name] for name in ("difference", "low", "high", "low_together", "high_together")] == [0] * 5
            assert (row["p_adjusted"], row["verdict"]) == (1, "equivalent")


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_few_documents_decide_nothing_by_their_losses(seeds):
    tables = losses(0, seeds=seeds, items=12)
    tables["v1"] -= 5
    for row in compared(LOSS, tables).values():
        assert [row[name] for name in ("low", "high", "low_together", "high_together")] == [None] * 4
        assert (row["p"], row["p_adjusted"], row["verdict"]) == (1, 1, "unclear")


# words


def test_a_lower_loss_is_better_and_a_lower_share_worse():
    high, low = answers(60, 0, 500).values()
    for column, words in ((LOSS, ("better", "worse")), (RIGHT, ("worse", "better"))):
        assert compared(column, {"ref": low, "v": high})["v", THESE]["verdict"] == words[0]
        assert compared(column, {"ref": high, "v": low})["v", THESE]["verdict"] == words[1]


def test_of_many_equal_variants_hardly_any_is_called_better_or_worse():
    told, alone = 0, 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        tables = {"ref": rng.normal(size=(1, 300))} | {f"v{i}": rng.normal(size=(1, 300)) for i in range(30)}
        rows = compared(LOSS, tables).values()
        told += any(row["verdict"] in ("better", "worse") for row in rows)
        alone += any(row["p"] < 0.05 for row in rows)
    assert told <= 2 < 6 <= alone


@pytest.mark.parametrize(
    ("column", "margin", "expected"),
    [(RIGHT, None, 0.005), (RIGHT, 0.02, 0.02), (RIGHT, "2 %", 0.02 * 0.9), (LOSS, None, 0.01 * 0.9), (LOSS, 0.3, 0.3),
     (LOSS, "1 %", 0.01 * 0.9), (LOSS, "2.5%", 0.025 * 0.9)],
)  # fmt: skip
def test_differences_within_the_margin_are_equivalent(column, margin, expected):
    noise = np.random.default_rng(0).normal(size=(1, 10_000))
    noise = (noise - noise.mean()) / noise.std()
    reference = np.repeat([1.0, 0.0], [9000, 1000])[None]
    for reach, word in ((0.5, "equivalent"), (1.5, "unclear")):  # of the interval, in margins
        near = reference + noise * 100 / 1.96 * reach * expected
        found = compared(column, {"ref": reference, "v": near}, margin=margin)["v", THESE]
        assert found["margin"] == pytest.approx(expected)
        assert found["verdict"] == word


@given(*[st.floats(-1, 1) | st.just(np.nan)] * 2, st.floats(0, 1), st.floats(0, 0.5), st.sampled_from([1, -1]))
@examples(200)
def test_a_word_follows_from_the_interval_the_p_value_and_the_margin(low, high, p, margin, sign):
    word = verdict(sign, low, high, p, margin)
    assert word in WORDS
    assert word == "unclear" or low <= high
    if word in ("better", "worse"):
        assert p < 0.05
        assert (sign * (low + high) > 0) == (word == "better")
    if word == "equivalent":
        assert max(-low, high) <= margin
    mirrored = verdict(-sign, low, high, p, margin)
    assert mirrored == {"better": "worse", "worse": "better"}.get(word, word)


def test_pools_are_compared_without_a_verdict_and_are_no_part_of_the_other_family():
    tables = losses(0, variants=4)
    own = {"v1": "ref", "v3": "v2"}
    found = compared(LOSS, tables, own, {"v2": "ref"})
    assert {(name, row["against"], row["kind"]) for (name, _), row in found.items()} == {
        ("v1", "ref", OWN), ("v3", "v2", OWN), ("v2", "ref", POOLS),
    }  # fmt: skip
    assert found["v2", THESE]["verdict"] == found["v2", LIKE_THESE]["verdict"] == ""
    assert found["v3", THESE]["difference"] == pytest.approx((tables["v3"] - tables["v2"]).mean())
    assert found["v2", THESE]["p_adjusted"] == pytest.approx(found["v2", THESE]["p"])
    alone = compared(LOSS, tables, own)
    assert {key: row for key, row in found.items() if row["kind"] == OWN} == alone


# the best


def test_the_best_has_the_highest_score_or_the_lowest_loss_and_all_that_may_be_it():
    tables = losses(0, variants=4, items=400)
    tables["v3"] = tables["v1"].copy()
    tables["v2"] = tables["v1"] + 1
    tables["ref"] = tables["v1"] + 0.5
    found = best(Scored(LOSS, tables))
    assert found["variant"] in found["set"] == ["v1", "v3"]
    assert found["value"] == pytest.approx(tables["v1"].mean())
    assert found["low"] < found["corrected"] < found["high"]
    assert best(Scored(RIGHT, {name: -table for name, table in tables.items()}))["set"] == ["v1", "v3"]


def test_the_best_of_many_equal_ones_is_corrected_towards_the_rest():
    rng = np.random.default_rng(0)
    found = best(Scored(LOSS, {f"v{i}": rng.normal(1, 1, size=(1, 300)) for i in range(40)}))
    assert found["value"] < 0.95 < found["corrected"] < 1.1
    assert len(found["set"]) > 20


def test_the_best_of_one_keeps_its_score_and_no_bound_leaves_the_scale():
    found = best(Scored(RIGHT, {"v": np.repeat([1.0, 0.0], [49, 1])[None]}))
    assert (found["variant"], found["value"], found["corrected"], found["set"]) == ("v", 0.98, 0.98, ["v"])
    assert found["high"] == 1.0


def test_the_best_does_not_depend_on_the_order():
    tables = losses(0, variants=6)
    assert best(Scored(LOSS, dict(reversed(tables.items())))) == best(Scored(LOSS, tables))
