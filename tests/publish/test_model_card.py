"""Metadata for the Hugging Face Hub, as its own library reads it."""

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries
from huggingface_hub.repocard_data import model_index_to_eval_results

from harness.cli.main import main
from harness.errors import BadInput
from harness.publish.model_card import eval_results, model_index
from tests.gate.planted import coins, planted, saved, worse

RUN = planted({"linear": coins(0.9), "ties": worse(coins(0.9), 9)}, extra={"ties": {"acc/sciq": 0.5}})


def test_a_model_card_gets_the_scores_and_no_costs():
    run = planted({"ties": worse(coins(0.9), 9)}, extra={"ties": {"acc/sciq": 0.5, "latency_ms_p50": 3.0}})
    name, results = model_index_to_eval_results(yaml.safe_load(model_index(run, "ties", "org/model"))["model-index"])
    scores = {result.metric_type: result.metric_value for result in results}
    expected = {"accuracy": 531 / 600, "nll": 1.5 - 531 / 600, "brier": 0.5 - 531 / 1200, "acc/sciq": 0.5}
    assert name == "org/model"
    assert scores == pytest.approx(expected)
    assert {(r.dataset_type, r.dataset_split) for r in results} == {("t", "test")}
    assert "95 % interval 0.8" in results[0].metric_name


@pytest.mark.parametrize(("metric", "value"), [("accuracy", 531 / 600), ("acc/sciq", 0.5)])
def test_a_leaderboard_gets_one_score(metric, value):
    (entry,) = parse_eval_result_entries(yaml.safe_load(eval_results(RUN, "ties", "org/data", "test", metric)))
    assert (entry.dataset_id, entry.task_id) == ("org/data", "test")
    assert entry.value == pytest.approx(value)
    assert entry.date == "2026-11-25T00:00:00+00:00"
    assert metric in entry.notes


def test_what_the_run_does_not_have_is_refused_with_the_nearest_name():
    with pytest.raises(BadInput, match="did you mean 'ties'"):
        model_index(RUN, "tise", "m")
    with pytest.raises(BadInput, match="did you mean 'accuracy'"):
        eval_results(RUN, "ties", "org/data", "test", "acuracy")


def test_the_commands_print_it(capsys, tmp_path):
    folder = saved(RUN, tmp_path / "run")
    for command, more in (("model-index", []), ("eval-results", ["--dataset", "org/data", "--task", "test"])):
        with pytest.raises(SystemExit) as stopped:
            main([command, str(folder), "ties", *more])
        assert stopped.value.code == 0
        assert yaml.safe_load(capsys.readouterr().out)
