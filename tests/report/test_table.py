"""The table of all variants: groups, order, the suite's score, and bars that can be seen."""

import pytest

from harness.report import table as table_code
from harness.report.table import table_of
from harness.report.words import own_name
from tests.report.compared import gained, planted, right

BASE = right(0.8, 1)
OUTCOMES = {
    "run:best_single": gained(BASE, 0.05), "run:linear": gained(BASE, 0.06), "best_single": BASE,
    "linear": gained(BASE, 0.03, 2), "linear/weights=learned": gained(BASE, 0.04, 3),
    "uniform_soup": gained(BASE, 0.01), "distill": gained(BASE, -0.7),
}  # fmt: skip


def titles(table):
    return [group.title.split(":")[0] + group.title.partition("·")[2] for group in table.groups]


@pytest.mark.parametrize("score", ["accuracy", "nll"])
def test_groups_are_of_pool_and_family_the_main_pool_first_and_each_by_the_score(score):
    table = table_of(planted(OUTCOMES, score=score))
    assert [title.split()[0] for title in titles(table)] == ["main"] * 4 + ["run"] * 2
    assert table.groups[0].title == "main: eight fine-tunes · single models"
    assert [row["family"] for row in table.rows] == [
        "single", "output", "output", "weights", "trained", "single", "output",
    ]  # fmt: skip
    for group in table.groups:
        values = [table.score.sign * row[score] for row in group.rows]
        assert values == sorted(values, reverse=True)
    assert sorted(row["variant"] for row in table.rows) == sorted(OUTCOMES)


@pytest.mark.parametrize("score", ["accuracy", "nll"])
def test_of_more_variants_than_a_page_holds_the_references_and_the_best_are_shown(score, monkeypatch):
    evidence = planted(OUTCOMES, score=score)
    others = [name for name in evidence.ordered(evidence.ok)["variant"] if "best_single" not in name]
    for most in range(3, 8):
        monkeypatch.setattr(table_code, "SHOWN", most)
        monkeypatch.setattr(table_code, "IN_FULL", most - 1)
        table = table_of(evidence)
        assert {row["variant"] for row in table.rows} == {"best_single", "run:best_single", *others[: most - 2]}
        assert {row["variant"] for row in table.full_rows} == {"best_single", "run:best_single", *others[: most - 3]}
        assert table.left_out == len(OUTCOMES) - most
        assert all(group.rows for group in table.groups)


def test_the_suites_score_comes_first_and_the_others_beside_it():
    table = table_of(planted(OUTCOMES, score="nll"))
    assert table.score.name == "nll"
    assert [column.name for column in table.others] == ["accuracy"]
    assert [column.name for column in table.compared] == ["nll", "accuracy"]


def test_verdicts_of_every_score_are_with_a_row():
    evidence = planted(OUTCOMES)
    row = next(row for row in table_of(evidence).rows if row["variant"] == "linear")
    compared = evidence.run.comparisons.set_index(["variant", "metric", "scope"])
    for metric in ("accuracy", "nll"):
        expected = compared.loc["linear", metric, "these models"]
        told = row["by_score"][metric]
        assert (told["value"], told["verdict"]) == (pytest.approx(expected["difference"]), expected["verdict"])
        assert (told["low"], told["high"]) == pytest.approx((expected["low"], expected["high"]))
    assert row["words"].startswith("accuracy +3.00 [")
    assert "; NLL −0." in row["words"]
    reference = next(row for row in table_of(evidence).rows if row["variant"] == "best_single")
    assert reference["difference"] is None


def test_models_like_these_have_verdicts_where_there_are_seeds():
    base = right(0.8, 1, seeds=2)
    several = table_of(planted({"best_single": base, "linear": gained(base, 0.03)}))
    assert several.recipes
    assert {row["variant"]: (row["difference"] or {}).get("recipe") for row in several.rows}["linear"]
    assert not table_of(planted(OUTCOMES)).recipes


def test_bars_can_be_seen_and_what_is_far_off_is_an_arrow():
    rows = {row["variant"]: row["bar"] for row in table_of(planted(OUTCOMES)).rows}
    assert rows["distill"]["off"] == "below"
    near = [bar for name, bar in rows.items() if name != "distill"]
    for bar in near:
        assert bar["off"] == ""
        assert 0 <= bar["low"] <= bar["value"] <= bar["high"] <= 100
        assert bar["high"] - bar["low"] > 12
        assert bar["reference"] == rows["best_single"]["value"]
    farther = table_of(planted({**OUTCOMES, "distill": gained(BASE, -0.79)}))
    assert {row["variant"]: row["bar"] for row in farther.rows}["linear"] == pytest.approx(rows["linear"])


def test_a_run_of_version_1_has_the_verdicts_that_it_has():
    evidence = planted(OUTCOMES, version=1)
    table = table_of(evidence)
    assert [column.name for column in table.compared] == ["accuracy", "nll"]
    for row in table.rows:
        if row["difference"]:
            assert row["difference"]["verdict"] == row["verdict"]
            assert row["by_score"]["nll"]["verdict"] == ""


@pytest.mark.parametrize(
    ("member", "shown"),
    [
        ({"name": "svm", "how": "predictions in data/svm.csv"}, "svm"),
        ({"name": "m1", "how": "folder models/reader-b"}, "reader-b"),
        ({"name": "m1", "how": "adapter tuned/lora_a"}, "lora_a"),
        ({"name": "m1", "how": "rate 0.001, 6 epochs"}, ""),
    ],
)
@pytest.mark.parametrize("base", [[], [{"name": "base", "how": "folder models/base"}]], ids=["no base", "base"])
def test_one_member_is_shown_by_the_name_that_its_user_knows(member, shown, base):
    evidence = planted({"best_single": BASE, "member/index=1": gained(BASE, 0.02)})
    seeds = {"0": {"members": [*base, {}, member]}}
    evidence.run.record["pools"]["main"] = {"kind": "independent", "members": 2, "seeds": seeds}
    row = {"method": "member", "params": '{"index": 1}', "pool": "main", "variant": "member/index=1"}
    assert own_name(evidence, row) == shown
    assert own_name(evidence, {**row, "method": "linear"}) == ""
    assert own_name(evidence, {**row, "params": '{"index": 2}'}) == ""
    evidence.run.record["pools"]["main"]["members"] = 5  # of one run's checkpoints only the run is listed
    assert own_name(evidence, row) == ""
