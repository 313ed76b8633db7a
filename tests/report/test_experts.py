"""The report's section on mixtures of experts, on runs that were made up."""

import pytest

from harness.display.formats import percent, points_interval
from harness.report.experts import experts_of
from harness.report.plots.routing import routing
from tests.report.compared import gained
from tests.report.compared import planted as compared
from tests.report.planted import BASE, planted

EVEN = {"0": [0.5, 0.5, 0.5, 0.5], "1": [0.5, 0.5, 0.5, 0.5]}
SPLIT = {"0": [1.0, 1.0, 0.0, 0.0], "1": [0.0, 0.0, 1.0, 1.0]}


def layer(by_group):
    load = [sum(each) / len(by_group) for each in zip(*by_group.values(), strict=True)]
    return {"load": load, "by_group": by_group}


def run(layers, *, dropped=0.0, training=()):
    seeds = {str(seed): {"experts": {"layers": layers, "rows": 10, "dropped": dropped},
                         "load_in_training": list(training)} for seed in (0, 1)}  # fmt: skip
    evidence = planted({"best_single": BASE, "moe": BASE}, details={"moe": seeds})
    evidence.by_name["moe"] |= {"params_active": 2e6, "params_stored": 8e6}
    return evidence


def told(*args, **kwargs):
    (row,) = experts_of(run(*args, **kwargs))["rows"]
    return row


def test_a_run_without_experts_has_no_such_section():
    evidence = planted({"best_single": BASE}, details={"best_single": {"0": {"heldout_score": 1.0}}})
    assert experts_of(evidence) is None
    assert routing(evidence) is None


def test_an_even_load_is_once_itself_whatever_the_classes():
    for by_group in (EVEN, SPLIT):
        row = told({"fc": layer(by_group)})
        assert (row["experts"], row["active"], row["busiest"]) == ("2 of 4", "2.00 M of 8.00 M", "1.00×")
        assert (row["idle"], row["dropped"], row["training"]) == ("none", "none", "–")


def test_an_expert_that_is_given_up_is_said_with_its_layer_and_its_seeds():
    row = told({"a": layer(EVEN), "b": layer({"0": [1.0, 0.96, 0.04, 0.0]})})
    assert row["idle"] == (
        "expert 2 of b runs for 4.0 % (in 2 of 2 seeds); expert 3 of b runs for 0.0 % (in 2 of 2 seeds)"
    )
    assert row["busiest"] == "2.00×"  # of 0.5


def test_of_many_those_of_most_seeds_are_said():
    evidence = run({"fc": layer({"0": [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]})})
    evidence.run.details["moe"]["1"]["experts"] = {"layers": {"fc": layer({"0": [0.5, 0.4, 0.0, 0.0, 0.1, 0.0]})},
                                                   "rows": 10, "dropped": 0.0}  # fmt: skip
    (row,) = experts_of(evidence)["rows"]
    assert row["idle"] == (
        "expert 2 runs for 0.0 % (in 2 of 2 seeds); expert 5 runs for 0.0 % (in 2 of 2 seeds); "
        "expert 0 runs for 0.0 % (in 1 of 2 seeds), and 3 more"
    )


def test_a_mixture_has_its_score_and_what_it_gains_and_costs_against_its_own_pools_best():
    uses = {"0": {"experts": {"layers": {"fc": layer(EVEN)}, "rows": 10, "dropped": 0.0}}}
    single, mixture = "independent:best_single", "independent:moe"
    outcomes = {"best_single": gained(BASE, -0.2), single: BASE, mixture: gained(BASE, 0.05, 2)}
    evidence = compared(outcomes, costs={single: 2, mixture: 3})
    vars(evidence.run).update(details={mixture: uses})
    section = experts_of(evidence)
    (row,) = section["rows"]
    gain = evidence.gain(mixture)
    assert gain.value == pytest.approx(0.05)
    assert row["gain"] == f"+5.00 [{points_interval(gain.low, gain.high)}]"
    assert (section["score"], row["score"], row["flops"]) == ("accuracy", percent(BASE.mean() + 0.05), "1.50×")


def test_training_is_told_from_its_first_part_to_its_last():
    row = told({"fc": layer(EVEN)}, training=[[1.0, 1.0, 0.0, 0.0], [0.9, 0.5, 0.3, 0.3], [0.6, 0.5, 0.5, 0.4]])
    assert row["training"] == "2.00× → 1.20×"


def test_where_all_run_nothing_is_chosen():
    evidence = run({"fc": layer({"0": [1.0, 1.0], "1": [1.0, 1.0]})}, training=[[1.0, 1.0]])
    (row,) = experts_of(evidence)["rows"]
    assert (row["experts"], row["busiest"], row["training"], row["idle"]) == ("2 of 2", "–", "–", "none")
    assert routing(evidence) is None


@pytest.mark.parametrize(("dropped", "words"), [(0.125, "12.50 %"), (0.0, "none")])
def test_what_a_capacity_drops_is_a_share_and_has_a_column_where_there_is_any(dropped, words):
    section = experts_of(run({"fc": layer(EVEN)}, dropped=dropped))
    assert section["rows"][0]["dropped"] == words
    assert section["drops"] == bool(dropped)


@pytest.mark.parametrize("layers", [1, 9])
def test_a_panel_has_a_row_for_each_group_and_a_column_for_each_expert_of_four_layers_at_most(layers):
    figure = routing(run({f"l{k}": layer(SPLIT) for k in range(layers)}))
    panel = figure.axes[0]
    assert panel.get_images()[0].get_array().shape == (2, 4 * min(layers, 4))
    assert [label.get_text() for label in panel.get_yticklabels()] == ["0", "1"]


def test_the_longer_side_lies_across_and_classes_are_in_the_order_of_their_numbers():
    """JSON files have them in the order of their names: 0, 1, 10, 2."""
    shares = {str(k): [k / 20, 1 - k / 20] for k in sorted(range(11), key=str)}
    panel = routing(run({"fc": layer(shares)})).axes[0]
    assert [label.get_text() for label in panel.get_xticklabels()] == [str(k) for k in range(11)]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["0", "1"]
    assert panel.get_images()[0].get_array().tolist() == [[k / 20 for k in range(11)], [1 - k / 20 for k in range(11)]]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("class or task", "expert")
