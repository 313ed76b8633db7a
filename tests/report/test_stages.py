"""The report's section on pipelines: what it says of stages, rounds and examples, on runs that were made up."""

import numpy as np
import pandas as pd
import pytest

from harness.report.plots.rounds import rounds
from harness.report.stages import stages_of
from tests.report.planted import BASE, EXAMPLES, SEEDS, exchanged, planted

SHOT, HARM, GAIN = "refine/rounds=0", "refine/rounds=4", "refine/rounds=2"
OTHER = "pipeline/last=logistic"
LABELS = ("bad", "good")
WORDS = {SHOT: 0.80, HARM: 0.72, GAIN: 0.85, OTHER: 0.80}


def run(words=WORDS, correct=None, details=None):
    outcomes = {name: BASE if correct is None else correct[name] for name in words}
    evidence = planted({"best_single": BASE, **outcomes}, details=details or {})
    rng = np.random.default_rng(3)
    tables, scores = [], []
    noise = rng.random((SEEDS, EXAMPLES)) * 0.1
    for name, mean in words.items():
        of = {"words_right/0 given": noise + 0.5, "words_right/1 m0": noise + mean - 0.05}
        own = (rng.random((SEEDS, EXAMPLES)) < 0.1).astype(float)
        of |= {"error/1 m0": (1.0 - outcomes[name]) - own, "error/2 m1": own}
        for metric, values in of.items():
            value = float(values.mean())
            scores.append({"variant": name, "seed": "all", "metric": metric, "value": value, "low": value - 0.01,
                           "high": value + 0.01, "n": EXAMPLES})  # fmt: skip
            for seed, row in enumerate(values):
                tables.append(pd.DataFrame({"variant": name, "seed": seed, "metric": metric, "value": row,
                                            "document": range(EXAMPLES)}))  # fmt: skip
    stages = []
    for number, (model, kind, value, truth) in enumerate([
        ("given", "text", "th_ day", "the day"), ("m0", "text", "tho | day", "the day"),
        ("m1", "class", "bad", "good"),
    ]):  # fmt: skip
        stages.append(pd.DataFrame({"variant": OTHER, "seed": 0, "example_id": [f"e{k:04}" for k in range(EXAMPLES)],
                                    "stage": number, "name": model, "kind": kind, "value": value, "truth": truth,
                                    "failed": ""}))  # fmt: skip
    whole = pd.concat(stages, ignore_index=True)
    whole.loc[(whole["example_id"] == "e0007") & (whole["stage"] == 1), "failed"] = "the text has no token"
    whole.loc[(whole["example_id"] == "e0000") & (whole["stage"] == 2), "value"] = "good"
    vars(evidence.run).update(scores=pd.DataFrame(scores), document_measures=pd.concat(tables), intermediate=whole)
    return evidence


def by_variant(rows):
    return {row["variant"]: row for row in rows}


def test_a_run_without_pipelines_has_no_such_section():
    evidence = planted({"best_single": BASE})
    vars(evidence.run).update(scores=pd.DataFrame(columns=["variant", "seed", "metric", "value", "low", "high", "n"]))
    assert stages_of(evidence) is None


def test_a_round_that_does_harm_is_shown_as_harm_and_one_that_helps_as_a_gain():
    rounds = by_variant(stages_of(run())["rounds"])
    assert set(rounds) == {HARM, GAIN}
    assert all(row["against"] == SHOT for row in rounds.values())
    assert rounds[HARM]["words"].startswith("−8.00 [")
    assert rounds[HARM]["words"].endswith("harm")
    assert rounds[GAIN]["words"].startswith("+5.00 [")
    assert rounds[GAIN]["words"].endswith("gain")
    assert rounds[HARM]["accuracy"].startswith("+0.00 [")
    assert rounds[HARM]["accuracy"].endswith("unclear")


def test_one_example_that_a_round_makes_wrong_is_no_harm_for_sure():
    worse = BASE.copy()
    worse[:, np.flatnonzero(BASE.all(axis=0))[0]] = False
    rounds = by_variant(stages_of(run(correct={SHOT: BASE, HARM: worse, GAIN: BASE, OTHER: BASE}))["rounds"])
    assert rounds[HARM]["accuracy"].startswith("−0.08 [−")
    assert rounds[HARM]["accuracy"].endswith("unclear")


def test_a_change_that_examples_do_not_settle_is_unclear():
    correct = {SHOT: BASE, HARM: exchanged(BASE, 0.1), GAIN: BASE, OTHER: BASE}
    rounds = by_variant(stages_of(run(correct=correct))["rounds"])
    assert rounds[HARM]["accuracy"].startswith("+0.00 [−")
    assert rounds[HARM]["accuracy"].endswith("unclear")


def test_the_errors_of_every_stage_and_what_it_could_not_take_are_in_the_table():
    row = by_variant(stages_of(run(details={OTHER: {"0": {"failures": {"1 m0": 3}}}}))["rows"])[OTHER]
    assert [float(row[name].split()[0]) for name in ("given", "words")] == pytest.approx([55.0, 80.0], abs=0.1)
    assert row["failed"] == "1 m0: 3"
    stages = [part.partition(":") for part in row["errors"].split("; ")]
    assert [stage for stage, _, _ in stages] == ["1 m0", "2 m1"]
    shown = sum(float(words.split()[0].replace("−", "-")) for _, _, words in stages)
    assert shown == pytest.approx(100 * (1 - BASE.mean()), abs=0.02)


def test_a_dozen_examples_are_shown_side_by_side_and_failures_besides():
    found = stages_of(run())
    assert found["shown"] == OTHER
    assert found["titles"] == ["0 given", "1 m0", "2 m1"]
    assert len(found["examples"]) == 13
    assert found["examples"][0]["right"] == "right"
    assert {example["right"] for example in found["examples"][1:]} == {"wrong"}
    assert found["examples"][-1]["failed"] == "stage 1 (m0): the text has no token"


def test_names_of_folders_stand_for_numbered_members():
    evidence = run()
    members = [{"name": "m0", "how": "folder data/restorer"}, {"name": "m1", "how": "folder data/reader"}]
    evidence.run.record["pools"]["main"] |= {"members": 2, "seeds": {"0": {"members": members}}}
    found = stages_of(evidence)
    assert found["titles"] == ["0 given", "1 restorer", "2 reader"]
    assert by_variant(found["rows"])[OTHER]["errors"].startswith("1 restorer: ")


def test_without_the_large_tables_the_scores_still_stand():
    evidence = run()
    for name in ("document_measures", "intermediate"):
        vars(evidence.run)[name] = None
    vars(evidence.run).pop("measured", None)
    found = stages_of(evidence)
    assert len(found["rows"]) == 4
    assert found["examples"] == []
    assert {row["words"] for row in found["rounds"]} == {"–"}


def test_rounds_are_drawn_against_quality_with_one_line_for_variants_alike():
    evidence = run()
    for row in evidence.by_name.values():
        row.update(accuracy=0.7, accuracy_low=0.68, accuracy_high=0.72)
    figure = rounds(evidence)
    words, accuracy = figure.axes
    assert [round(value, 1) for value in words.lines[0].get_ydata()] == pytest.approx([80, 85, 72], abs=0.1)
    assert list(words.lines[0].get_xdata()) == [0, 2, 4]
    assert accuracy.get_legend_handles_labels()[1] == [SHOT]
    assert rounds(planted({"best_single": BASE})) is None
