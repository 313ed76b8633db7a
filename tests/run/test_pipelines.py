"""Suites with pipelines through a whole run: what is kept by stage, what does not apply, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest

from harness.errors import BadInput
from harness.report.document import write_report
from harness.results.columns import INTERMEDIATE_COLUMNS, column_of
from harness.results.evidence import read_tables
from harness.results.run import read_run
from harness.run import runner
from harness.run.plan import Options
from harness.run.planning import make_plan
from harness.run.progress import Tracker
from harness.suite.suite import read_suite
from tests.evaluate.test_by_stage import CLEAN
from tests.gate.law import unproven
from tests.inline import Inline
from tests.models.classifier_folders import LABELS
from tests.systems.restorers import SAID, classifier, marked, restorer

SUITE = """suite: repair
task: {texts: {train: train.csv, heldout: heldout.csv, test: test.csv, text: noisy, clean: text, cluster: chapter}}
pool: {hf: {members: [restorer, one, two]}}
reference: member/index=2
methods:
  - member: {index: [1, 2]}
  - refine: {rounds: [0, 2]}
  - pipeline: {stages: [[0, 1], [2, 1]], last: [member, logistic]}
  - linear
  - linear: {members: [1, 2]}
cost: {latency: false, memory: false}
"""
OK = {
    "member/index=1", "member/index=2", "refine/rounds=0", "refine/rounds=2", "linear/members=1+2",
    "pipeline/stages=0:1", "pipeline/stages=2:1", "pipeline/last=logistic,stages=0:1",
    "pipeline/last=logistic,stages=2:1",
}  # fmt: skip


def write(folder, suite=SUITE):
    for split, begin in (("train", 0), ("heldout", 20), ("test", 40)):
        numbers = range(begin, begin + 20)
        rows = [(marked(SAID[n % 8]) + " day" * (n % 4), CLEAN[n % 8] + " day" * (n % 4), LABELS[n % 3], f"c{n // 2}")
                for n in numbers]  # fmt: skip
        if split == "test":
            rows[0] = ("the <b>|day was [MASK]", "the <b>|day was i", LABELS[0], rows[0][3])
            rows[5] = ("day " * 50, "day " * 50, LABELS[0], rows[5][3])
        pd.DataFrame(rows, columns=["noisy", "text", "label", "chapter"]).to_csv(folder / f"{split}.csv", index=False)
    for name, model in (("restorer", restorer()), ("one", classifier(1)), ("two", classifier(2))):
        (folder / name).symlink_to(model)
    (folder / "suite.yaml").write_text(suite)
    return folder / "suite.yaml"


def run_in(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.engines.local._Pools", Inline)
        plan = make_plan(read_suite(folder / "suite.yaml"), Options(folder / "results", workers=1))
        return read_run(runner.run(plan, Tracker()))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repair")
    write(folder)
    return run_in(folder)


def whole(run):
    return run.variants[run.variants["seed"] == "all"].set_index("variant")


def test_pipelines_are_scored_and_what_takes_classes_says_that_the_restorer_has_none(run):
    table = whole(run)
    assert set(table.index[table["status"] == "ok"]) == OK
    assert table.loc["linear", "status"] == "not_applicable"
    assert table.loc["linear", "reason"] == "member m0 gives text and no class, and linear needs probabilities"


def test_intermediate_results_are_kept_by_variant_stage_and_example(run):
    table = run.intermediate
    assert list(table.columns) == list(INTERMEDIATE_COLUMNS)
    assert set(table["variant"]) == {name for name in OK if name.startswith(("pipeline", "refine"))}
    sizes = table.groupby(["variant", "stage"], observed=True).size()
    assert (sizes == 20).all()
    examples = run.examples[run.examples["variant"] == "refine/rounds=2"].set_index("example_id")
    last = table[(table["variant"] == "refine/rounds=2") & (table["stage"] == 2)].set_index("example_id")
    said = last["value"].map(list(LABELS).index)
    assert said.to_dict() == examples["prediction"].to_dict()


def test_calls_are_counted_by_part_and_a_failure_by_its_stage(run):
    examples = run.examples[run.examples["variant"] == "refine/rounds=0"].set_index("example_id")
    assert examples.loc["test-5", "calls"] == 0
    assert run.details["refine/rounds=0"]["0"]["failures"] == {"1 m0": 1}
    table = run.intermediate
    failed = table[(table["variant"] == "refine/rounds=0") & (table["failed"] != "")]
    assert failed[["example_id", "stage"]].values.tolist() == [["test-5", 1]]
    more = run.examples.groupby("variant", observed=True)["calls"].mean()
    assert more["refine/rounds=0"] < more["refine/rounds=2"]
    table = whole(run)
    assert table.loc["refine/rounds=0", "flops_per_example"] < table.loc["refine/rounds=2", "flops_per_example"]


def test_errors_by_stage_have_intervals_over_clusters_and_add_up(run):
    scores = run.scores[run.scores["seed"] == "all"].set_index(["variant", "metric"])
    for variant in ("refine/rounds=0", "refine/rounds=2", "pipeline/stages=2:1"):
        errors = scores.loc[variant].filter(like="error/", axis=0)
        assert len(errors) == 2
        wrong = 1 - whole(run).loc[variant, "accuracy"]
        assert errors["value"].sum() == pytest.approx(wrong)
        assert (errors["low"] <= errors["value"]).all()
        assert (errors["value"] <= errors["high"]).all()
        assert (errors["n"] == 10).all()  # two texts a chapter
    given = scores.loc[("refine/rounds=0", "words_right/0 given"), "value"]
    assert 0 < given < 1
    assert (column_of("error/1 m0").better, column_of("words_right/1 m0").better) == ("lower", "higher")
    read_tables(run.folder)


def test_the_report_shows_stages_side_by_side_and_no_text_breaks_out_of_a_table(run):
    write_report(run.folder)
    page, markdown = ((run.folder / f"report.{kind}").read_text() for kind in ("html", "md"))
    assert "<h2>Stage by stage</h2>" in page
    assert "the &lt;b&gt;|day was [MASK]" in page
    assert "<b>|day" not in page + markdown
    section = markdown.partition("## Stage by stage")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if "&lt;b&gt;" in line]
    assert rows
    assert all(line.replace("\\|", "").count("|") == 6 for line in rows)
    assert "refine/rounds=2` | `refine/rounds=0" in section


def test_run_again_nothing_is_made_anew(run):
    again = run_in(run.folder.parents[2])
    assert again.record["summary"]["jobs_run"] == 0
    pd.testing.assert_frame_equal(again.intermediate, run.intermediate)


def test_a_suite_without_clean_texts_has_the_digest_that_it_had(tmp_path):
    plain = SUITE.replace(", clean: text", "")
    write(tmp_path, plain)
    of = read_suite(tmp_path / "suite.yaml")
    (tmp_path / "suite.yaml").write_text(SUITE)
    assert read_suite(tmp_path / "suite.yaml").digest != of.digest
    stored = json.dumps(of.file.model_dump(mode="json"))
    assert "clean" not in stored


def test_what_restores_never_sees_the_true_texts(run, tmp_path):
    """With other true texts the answers are the same, and only what is held against them changes."""
    few = SUITE.replace("{index: [1, 2]}", "{index: 2}").replace("[[0, 1], [2, 1]]", "[[0, 1]]")
    write(tmp_path, few.replace("  - linear\n  - linear: {members: [1, 2]}\n", ""))
    for split in ("heldout", "test"):
        table = pd.read_csv(tmp_path / f"{split}.csv")
        table.assign(text="sleep").to_csv(tmp_path / f"{split}.csv", index=False)
    other = run_in(tmp_path)
    for name in ("refine/rounds=2", "pipeline/last=logistic,stages=0:1"):
        ours, theirs = (each.examples[each.examples["variant"] == name] for each in (run, other))
        np.testing.assert_array_equal(ours["nll"].to_numpy(), theirs["nll"].to_numpy())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("clean: text", "clean: nothing"), "nothing"),
        (("clean: text", "clean: [text, noisy]"), "'text' is 1 columns and 'clean' 2"),
        (("rounds: [0, 2]", "rounds: -1"), "bad value -1 for 'rounds'"),
        (("rounds: [0, 2]", "share: 1.5"), "bad value 1.5 for 'share'"),
        (("stages: [[0, 1], [2, 1]]", "stages: 0"), "write a value that is a list as"),
    ],
)
def test_bad_input_is_one_line(tmp_path, change, words):
    write(tmp_path, SUITE.replace(*change))
    with pytest.raises(BadInput) as refused:
        make_plan(read_suite(tmp_path / "suite.yaml"), Options(tmp_path / "results", workers=1))
    assert words in str(refused.value)
    assert "\n" not in refused.value.problem


def test_the_examples_give_all_that_the_tables_say(run):
    assert unproven(run.folder) == []
