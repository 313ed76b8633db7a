"""lm-eval's samples as lm-eval writes them: its accuracies come back, question by question."""

import json
import shutil

import numpy as np
import pytest
import torch
from scipy.special import softmax

from harness.errors import BadInput
from harness.imports import Asked, choose_format, read_given, write_pool
from harness.imports.format import Given
from harness.models.prediction_file import read_predictions
from harness.models.prediction_join import join
from harness.registry import FORMATS
from tests.imports.conftest import MODELS

LM_EVAL = FORMATS.get("lm_eval")


def imported(folder, *tasks, **asked):
    given = [Given(folder / name) for name in MODELS]
    return read_given(given, choose_format(given, None), Asked(tasks=tasks, **asked))


def samples(folder, member, task):
    (path,) = (folder / member).glob(f"samples_{task}_*.jsonl")
    return path, [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def copied(lm_eval_run, tmp_path):
    """A copy that a test may spoil."""
    for name in MODELS:
        shutil.copytree(lm_eval_run.folder / name, tmp_path / name)
    return tmp_path


def rewrite(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("metric", ["acc", "acc_norm"])
@pytest.mark.parametrize("task", ["three", "mixed"])
def test_accuracies_are_lm_evals(lm_eval_run, task, metric):
    """By logits of choices of one or of several numbers, with and without a delimiter before the choice."""
    found = imported(lm_eval_run.folder, task, metric=metric)
    assert found.form == "probabilities"
    for member in MODELS:
        expected = lm_eval_run.scores[member][task][f"{metric},none"]
        assert found.right(member).mean() == pytest.approx(expected, abs=1e-12)
        _, rows = samples(lm_eval_run.folder, member, task)
        assert found.right(member).tolist() == [row[metric] == 1 for row in rows]


def test_targets_may_be_texts_of_choices(lm_eval_run):
    found = imported(lm_eval_run.folder, "texts")
    for member in MODELS:
        assert found.right(member).mean() == pytest.approx(lm_eval_run.scores[member]["texts"]["acc,none"], abs=1e-12)
    _, rows = samples(lm_eval_run.folder, MODELS[0], "texts")
    said = [row["arguments"][f"gen_args_{'ABC'.index(label)}"]["arg_1"].strip()
            for row, label in zip(rows, found.questions["label"], strict=True)]  # fmt: skip
    assert said == [row["target"] for row in rows]


def test_probabilities_are_the_softmax_of_the_log_likelihoods_and_missing_choices_have_none(lm_eval_run):
    found = imported(lm_eval_run.folder, "mixed")
    assert found.classes == ("A", "B", "C", "D")
    for member in MODELS:
        _, rows = samples(lm_eval_run.folder, member, "mixed")
        for row, (name, values) in zip(rows, found.members[member].iterrows(), strict=True):
            said = softmax([float(value) for value, _ in row["filtered_resps"]])
            assert name == f"mixed/{row['doc_id']}"
            np.testing.assert_allclose(values, np.pad(said, (0, 4 - len(said))), rtol=1e-12)


def test_several_right_answers_are_no_label_so_only_right_and_wrong_are_taken(lm_eval_run):
    found = imported(lm_eval_run.folder, "several", "three")
    assert found.form == "correct"
    for member in MODELS:
        rows = [row for task in ("several", "three") for row in samples(lm_eval_run.folder, member, task)[1]]
        assert found.right(member).tolist() == [row["acc"] == 1 for row in rows]
    with pytest.raises(BadInput, match="do not name one choice each"):
        imported(lm_eval_run.folder, "several", form="probabilities")


def test_generation_goes_by_a_metric_of_one_filter(lm_eval_run):
    with pytest.raises(BadInput, match="exact_match,first, exact_match,letters"):
        imported(lm_eval_run.folder, "generated")
    found = imported(lm_eval_run.folder, "generated", metric="exact_match,letters")
    shares = [found.right(member).mean() for member in MODELS]
    assert shares == [lm_eval_run.scores[member]["generated"]["exact_match,letters"] for member in MODELS]
    assert len(set(shares)) == 2  # so the members were not mixed up


def test_one_document_asked_twice_is_one_group(lm_eval_run):
    groups = imported(lm_eval_run.folder, "mixed").questions["group"]
    assert groups["mixed/0"] == groups["mixed/12"]
    assert groups.nunique() == len(groups) - 1


def test_two_choices_without_a_target_among_them_are_labelled_by_what_was_right(copied):
    """As of winogrande, whose choices are beginnings and whose target is the end of both."""
    for member in MODELS:
        path, rows = samples(copied, member, "mixed")
        rows = [row for row in rows if len(row["filtered_resps"]) == 2]
        expected = [int(row["target"]) for row in rows]
        rewrite(path, [{**row, "target": "the end"} for row in rows])
    found = imported(copied, "mixed")
    assert found.questions["label"].tolist() == ["AB"[position] for position in expected]


def test_rows_of_some_members_only_are_left_out_and_counted(copied):
    path, rows = samples(copied, MODELS[0], "three")
    changed = [{**row, "doc_hash": "0" * 64} if row["doc_id"] == 3 else row for row in rows[1:]]
    rewrite(path, changed)
    found = imported(copied, "three")
    assert len(found.questions) == 22
    assert found.dropped == ["3 of 25 rows that not all members answered"]
    rewrite(path, [{**row, "doc_hash": "0" * 64} for row in rows])
    with pytest.raises(BadInput, match="no row is answered by all members"):
        imported(copied, "three")


def test_a_task_of_some_members_only_is_left_out_by_name(copied):
    samples(copied, MODELS[1], "texts")[0].unlink()
    found = imported(copied, "three", "texts")
    assert found.dropped == ["the task texts, which not all members have"]
    assert len(found.questions) == 24


def spoil_score(row):
    row["acc"] = 1 - row["acc"]


def spoil_target(row):
    row["target"] = str((int(row["target"]) + 1) % 3)


@pytest.mark.parametrize("spoil", [spoil_score, spoil_target])
def test_scores_that_are_not_what_the_choices_give_are_refused(copied, spoil):
    path, rows = samples(copied, MODELS[0], "three")
    _, others = samples(copied, MODELS[0], "three")
    for row in rows:
        spoil(row)
    rewrite(path, rows)
    assert rows != others
    with pytest.raises(BadInput, match="acc of document 0 is not what"):
        imported(copied, "three", metric="acc")
    assert imported(copied, "three", metric="acc", form="correct").form == "correct"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (lambda rows: [*rows, rows[0]], "occurs twice"),
        (lambda rows: [*rows[:-1], {"doc_id": 1}], ":24: a line is no sample"),
    ],
)
def test_rows_twice_and_foreign_lines_are_refused(copied, lines, message):
    path, rows = samples(copied, MODELS[0], "three")
    rewrite(path, lines(rows))
    with pytest.raises(BadInput, match=message):
        imported(copied, "three")


def test_two_files_of_one_member_and_task_are_refused_unless_members_are_named(copied):
    path, _ = samples(copied, MODELS[0], "three")
    again = path.with_name("samples_three_2020-01-01T00-00-00.0.jsonl")
    again.write_text(path.read_text())
    with pytest.raises(BadInput, match="NAME=PATH"):
        imported(copied, "three")
    found = read_given([Given(path, "first"), Given(again, "second")], LM_EVAL, Asked())
    assert set(found.members) == {"first", "second"}


def test_older_samples_are_read_too(copied):
    """lm-eval before 0.4.9: numbers that are no texts, no filter, no list of metrics, no hash of the document."""
    for member in MODELS:
        path, rows = samples(copied, member, "three")
        for row in rows:
            for key in ("filter", "metrics", "doc_hash", "prompt_hash", "target_hash"):
                del row[key]
            row["target"] = int(row["target"])
            row["filtered_resps"] = [[float(value), greedy == "True"] for value, greedy in row["filtered_resps"]]
            row["arguments"] = [list(each.values()) for each in row["arguments"].values()]
        rewrite(path, rows)
    found = imported(copied, "three", metric="acc_norm")
    assert found.form == "probabilities"
    for member in MODELS:
        assert found.right(member).tolist() == [row["acc_norm"] == 1 for row in samples(copied, member, "three")[1]]


def test_what_a_suite_reads_has_lm_evals_accuracy(lm_eval_run, tmp_path):
    """Through files and float32, with choices that are missing."""
    found = imported(lm_eval_run.folder, "three", "mixed")
    written = write_pool(found, tmp_path / "pool", "lm_eval")
    positions = torch.tensor(["ABCD".index(label) for label in found.questions["label"]])
    for member, file in written.files.items():
        content = read_predictions(tmp_path / "pool" / file)
        read = join(content, found.questions.index.tolist(), found.classes, "probabilities", "probabilities")
        right = (read.log_probs.argmax(dim=1) == positions).double()
        for task in ("three", "mixed"):
            of_task = right.numpy()[found.questions["stratum"] == task]
            assert of_task.mean() == pytest.approx(lm_eval_run.scores[member][task]["acc,none"], abs=1e-12)
