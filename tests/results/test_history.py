"""Scores over runs: which runs count, what they are marked with, and that later ones change nothing."""

import pytest

from harness.errors import BadInput
from harness.results.history import history, newest_runs
from harness.results.run import Run
from tests.gate.planted import changed, coins, planted, saved

TASK = {"name": "t", "title": "A task", "source": "here", "digest": "d"}


def stored(out, run_id, share=0.8, suite="planted", **record):
    run = planted({"ref": coins(share), "soup": coins(share + 0.05), "mix": coins(share + 0.1)})
    families = run.variants["variant"].map({"ref": "single", "soup": "weights", "mix": "weights"})
    bounds = {f"accuracy_{end}": run.variants["accuracy"] + by for end, by in (("low", -0.01), ("high", 0.01))}
    run = changed(
        run,
        variants=run.variants.assign(family=families, flops_per_example=1.0, **bounds),
        run_id=run_id,
        started=f"2026-11-{run_id[:2]}T00:00:00+00:00",
        reference={"variant": "ref"},
        task=TASK,
        **record,
    )
    run.record["suite"]["name"] = suite
    found = Run(saved(run, out / suite / run_id), run.record)
    found.__dict__.update({name: run.__dict__[name] for name in ("variants", "scores", "examples")})
    return found


def test_runs_are_in_order_and_later_ones_do_not_count(tmp_path):
    middle = stored(tmp_path, "11", 0.6)
    alone = history(middle)
    assert [entry.run_id for entry in alone] == ["11"]
    stored(tmp_path, "12", 0.7)
    assert history(middle) == alone
    stored(tmp_path, "10", 0.5)
    found = history(middle)
    assert [entry.run_id for entry in found] == ["10", "11"]
    assert [entry.reference.accuracy for entry in found] == pytest.approx([0.5, 0.6])


def test_the_best_of_each_family_with_its_interval(tmp_path):
    (entry,) = history(stored(tmp_path, "10"))
    assert {family: score.variant for family, score in entry.best.items()} == {"single": "ref", "weights": "mix"}
    best = entry.best["weights"]
    assert (best.value, best.low, best.high) == pytest.approx((0.9, 0.89, 0.91))
    assert entry.metric.name == "accuracy"


def test_the_newest_runs_score_decides_and_a_loss_is_best_low(tmp_path):
    stored(tmp_path, "10")
    run = stored(tmp_path, "11")
    run.record["scores"] = ["nll"]
    losses = run.variants["variant"].map({"ref": 0.5, "soup": 0.2, "mix": 0.3})
    run.__dict__["variants"] = run.variants.assign(nll=losses, nll_low=losses - 0.01, nll_high=losses + 0.01)
    entry = history(run)[-1]
    assert entry.metric.name == "nll"
    assert entry.best["weights"].variant == "soup"
    best, reference = entry.best["weights"], entry.reference
    assert (best.value, best.low, best.high, reference.value) == pytest.approx((0.2, 0.19, 0.21, 0.5))
    assert best.accuracy == pytest.approx(0.85)


def test_equal_starts_are_told_apart_by_their_names(tmp_path):
    first, second = stored(tmp_path, "10"), stored(tmp_path, "10-2")
    assert first.record["started"] == second.record["started"]
    assert [entry.run_id for entry in history(second)] == ["10", "10-2"]
    assert [entry.run_id for entry in history(first)] == ["10"]


@pytest.mark.parametrize(
    ("record", "mark"),
    [
        ({"limit": 50}, "limited to 50 examples"),
        ({"only": "linear*"}, "only linear*"),
        ({"status": "incomplete"}, "incomplete"),
        ({"seeds": [0, 1]}, "other seeds"),
        ({"task": {**TASK, "digest": "e"}}, "other data: the content differs"),
        ({"suite": {"name": "planted", "digest": "e" * 64, "yaml": ""}}, "another suite file"),
    ],
)
def test_a_run_that_is_not_the_same_in_full_is_marked(tmp_path, record, mark):
    other = stored(tmp_path / "else", "10")
    saved(changed(other, **record), tmp_path / "planted" / "10")
    entries = history(stored(tmp_path, "11"))
    assert [entry.marks for entry in entries] == [(mark,), ()]


def test_what_cannot_be_read_and_links_and_other_suites_are_left_out(tmp_path):
    run = stored(tmp_path, "11")
    stored(tmp_path, "10")
    (tmp_path / "planted" / "latest").symlink_to("10")
    (tmp_path / "planted" / "09").mkdir()
    (tmp_path / "planted" / "09" / "run.json").write_text("{")
    other = stored(tmp_path, "08", suite="another")
    saved(other, tmp_path / "planted" / "08")
    assert [entry.run_id for entry in history(run)] == ["10", "11"]


def test_the_newest_run_of_each_suite(tmp_path):
    for suite, run_id in (("a", "10"), ("a", "11"), ("b", "10")):
        stored(tmp_path, run_id, suite=suite)
    saved(stored(tmp_path / "else", "12", suite="a"), tmp_path / "baselines" / "main")  # a copy is no run of its own
    assert [(run.record["suite"]["name"], run.record["run_id"]) for run in newest_runs(tmp_path)] == [
        ("a", "11"), ("b", "10"),
    ]  # fmt: skip
    assert [run.record["run_id"] for run in newest_runs(tmp_path, "b")] == ["10"]
    with pytest.raises(BadInput, match="did you mean 'b'"):
        newest_runs(tmp_path, "bb")


def test_a_run_without_a_reference_still_has_a_history(tmp_path):
    run = stored(tmp_path, "10")
    rows = run.variants
    run.__dict__["variants"] = rows[rows["variant"] != "ref"]
    (entry,) = history(run)
    assert entry.reference is None
    assert set(entry.best) == {"weights"}
