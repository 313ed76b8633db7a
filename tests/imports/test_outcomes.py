"""Sources of right and wrong: RouterBench, RouteLLM, Every Eval Ever."""

import numpy as np
import pandas as pd
import pytest

from harness.errors import BadInput
from harness.imports import Asked, choose_format, read_given
from harness.imports.format import Given
from tests.imports.sources import MODELS, every_eval_ever, routellm, routerbench, write_lines


def imported(*paths, form=None, **asked):
    given = [Given(path) for path in paths]
    return read_given(given, choose_format(given, form), Asked(**asked))


@pytest.fixture
def table(tmp_path):
    """RouterBench's table as a file of one of the two kinds."""
    path = tmp_path / "routerbench.csv"
    routerbench().to_csv(path, index=False)
    return path


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_scores_and_costs_are_those_of_the_table_and_whole_evals_of_other_scores_are_left_out(tmp_path, ending):
    source = routerbench()
    path = tmp_path / f"table.{ending}"
    source.to_csv(path, index=False) if ending == "csv" else source.to_parquet(path)
    found = imported(path)
    kept = source[source["eval_name"] != "mtbench"]
    assert found.questions.index.tolist() == kept["sample_id"].tolist()
    for model in MODELS:
        assert found.right(model).tolist() == (kept[model] == 1).tolist()
        np.testing.assert_allclose(found.members[model]["cost_money"], kept[f"{model}|total_cost"], rtol=1e-12)
    assert [line.split(",")[0] for line in found.dropped] == ["10 rows of mtbench"]


def test_a_threshold_says_from_which_score_on_an_answer_is_right(table):
    source = routerbench()
    found = imported(table, threshold=0.7)
    assert not found.dropped
    for model in MODELS:
        assert found.right(model).tolist() == (source[model] >= 0.7).tolist()


def test_rows_with_one_prompt_are_one_group(table):
    source = routerbench()
    groups = imported(table, threshold=0.5).questions["group"]
    assert groups.nunique() == source["prompt"].nunique() < len(source)
    for _, rows in source.groupby("prompt"):
        assert groups[rows["sample_id"]].nunique() == 1


def test_only_the_tasks_that_are_asked_for_are_taken(table):
    assert set(imported(table, tasks=("mmlu", "gsm8k")).questions["stratum"]) == {"mmlu", "gsm8k"}
    with pytest.raises(BadInput, match="did you mean 'gsm8k'"):
        imported(table, tasks=("gsm8",))


def test_a_row_that_a_model_did_not_answer_is_left_out_and_counted(tmp_path):
    source = routerbench()
    source.loc[0, MODELS[0]] = np.nan
    source.to_csv(tmp_path / "t.csv", index=False)
    found = imported(tmp_path / "t.csv", threshold=0.5)
    assert len(found.questions) == 39
    assert found.dropped == ["1 of 40 rows that not all models answered"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: pd.concat([table, table[:1]]), "'mmlu.dev.0' occurs twice"),
        (lambda table: table.assign(**{MODELS[0]: 7.0}), "scores are between 0 and 1"),
        (lambda table: table.assign(**{MODELS[0]: "right"}), "a score or cost is no number"),
        (lambda table: table.assign(**{f"{MODELS[0]}|total_cost": -1.0}), "cost_money that is no number from 0"),
        (lambda table: table.assign(**dict.fromkeys(MODELS, 0.5)), "say from which score"),
        (lambda table: table[:0], "no rows are left"),
    ],
)
def test_tables_that_cannot_be_taken_as_they_are_are_refused(tmp_path, change, message):
    change(routerbench()).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(BadInput, match=message):
        imported(tmp_path / "t.csv")


def test_routellms_tables_are_tasks_and_what_models_said_is_no_model(tmp_path):
    first, second = routellm(), routellm(seed=1, rows=20)
    first.to_csv(tmp_path / "mmlu_law.csv", index=False)
    second["gpt-4-1106-preview_response"] = "Two, I think"
    second.to_csv(tmp_path / "gsm8k.csv", index=False)
    found = imported(tmp_path / "mmlu_law.csv", tmp_path / "gsm8k.csv")
    assert found.questions["stratum"].tolist() == ["mmlu_law"] * 40 + ["gsm8k"] * 20
    assert set(found.members) == {"mixtral-8x7b-instruct-v0.1", "gpt-4-1106-preview"}
    for model in found.members:
        assert found.right(model).tolist() == [*first[model], *second[model]]
    assert found.questions["group"].nunique() == pd.concat([first, second])["prompt"].nunique()


def test_what_is_neither_true_nor_false_is_refused(tmp_path):
    table = routellm().astype({"gpt-4-1106-preview": str})
    table.loc[3, "gpt-4-1106-preview"] = "maybe"
    table.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(BadInput, match="neither true nor false in row 3: 'maybe'"):
        imported(tmp_path / "t.csv", form="routellm")


@pytest.fixture
def instances(tmp_path):
    """A folder as of the datastore of Every Eval Ever, and its lines by model."""
    lines = {model: every_eval_ever(model, seed) for seed, model in enumerate(("openai/gpt2", "meta/llama"))}
    for model, of in lines.items():
        write_lines(tmp_path / "data" / model / "0-1_samples.jsonl", of)
    return tmp_path / "data", lines


def test_scores_tokens_and_times_are_those_of_the_lines(instances):
    folder, lines = instances
    found = imported(folder)
    for model, of in lines.items():
        assert found.right(model).tolist() == [line["evaluation"]["is_correct"] for line in of]
        frame = found.members[model]
        assert frame["cost_tokens"].tolist() == [line["token_usage"]["total_tokens"] for line in of]
        assert frame["cost_ms"].tolist() == [line["performance"]["generation_time_ms"] for line in of]
        assert frame.index.tolist() == [f"{line['evaluation_name']}/{line['sample_id']}" for line in of]


def test_costs_that_some_rows_lack_are_left_out_by_name(instances):
    folder, lines = instances
    lines["openai/gpt2"][3]["token_usage"] = None
    write_lines(folder / "openai/gpt2" / "0-1_samples.jsonl", lines["openai/gpt2"])
    found = imported(folder)
    assert found.costs == ["cost_ms"]
    assert found.dropped == ["cost_tokens, which some rows have and others lack"]


def spoil_score(lines):
    lines[0]["evaluation"]["is_correct"] = not lines[0]["evaluation"]["is_correct"]


def spoil_evaluation(lines):
    del lines[0]["evaluation"]["score"]


def spoil_line(lines):
    lines[4] = {"model_id": "a"}


def repeat(lines):
    lines.append(lines[0])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_score, "a score and an is_correct that differ in 'gsm8k/id0'"),
        (spoil_evaluation, "0-1_samples.jsonl:1: a sample lacks"),
        (spoil_line, "0-1_samples.jsonl:5: a line is no sample"),
        (repeat, "'gsm8k/id0' occurs twice"),
    ],
)
def test_lines_that_contradict_the_schema_or_themselves_are_refused(instances, spoil, message):
    folder, lines = instances
    spoil(lines["openai/gpt2"])
    write_lines(folder / "openai/gpt2" / "0-1_samples.jsonl", lines["openai/gpt2"])
    with pytest.raises(BadInput, match=message):
        imported(folder, form="every_eval_ever")
