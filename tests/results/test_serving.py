"""By what a run counts the cost of serving."""

from pathlib import Path

import numpy as np
import pandas as pd

from harness.results.columns import column_of
from harness.results.run import Run
from harness.results.serving import cost_ratios, own_costs, serving_of


def test_money_comes_before_tokens_before_milliseconds_before_the_rest():
    given = ["cost/ms", "accuracy/view", "cost/air", "cost/tokens", "acc/cost", "cost/money"]
    assert own_costs(given) == ["cost/money", "cost/tokens", "cost/ms", "cost/air"]


def test_a_cost_of_members_is_better_where_it_is_lower_and_has_a_value_for_each_document():
    column = column_of("cost/anything")
    assert (column.name, column.better, column.least) == ("cost/anything", "lower", 0.0)
    assert column.outcome == "measures.parquet"
    assert column_of("cost") is None


def test_a_run_says_by_what_it_goes_and_older_ones_went_by_flops():
    def serving(record):
        return serving_of(Run(Path("nowhere"), record))

    assert serving({}).title == "FLOPs"
    assert serving({}).cost == column_of("flops_per_example")
    told = serving({"serving": {"cost": "cost/money", "why_no_costs": "nothing is run"}})
    assert (told.title, told.why_no_costs) == ("money", "nothing is run")
    assert serving({"serving": {"cost": None, "why_no_costs": "nothing is run"}}).cost is None


def costs(given, record=None, measures=None):
    """Of a run whose variants cost so much."""
    rows = [{"variant": name, "seed": "all", "status": "ok", "flops_per_example": cost} for name, cost in given.items()]
    run = Run(Path("nowhere"), {"reference": {"variant": "best_single"}, **(record or {})})
    vars(run).update(variants=pd.DataFrame(rows), measures=pd.DataFrame(measures or {}))
    return cost_ratios(run)


def test_costs_are_told_in_units_of_the_references():
    assert costs({"best_single": 50.0, "linear": 400.0, "unknown": np.nan}) == {"best_single": 1.0, "linear": 8.0}
    assert costs({"linear": 400.0}) == {}  # no reference
    assert costs({"best_single": np.nan, "linear": 400.0}) == {}
    money = {"serving": {"cost": "cost/money", "why_no_costs": "nothing is run"}}
    told = {"cost/money": {"best_single": 0.5, "linear": 2.0, "failed": 9.0}}
    assert costs({"best_single": np.nan, "linear": np.nan}, money, told) == {"best_single": 1.0, "linear": 4.0}
    assert costs({"best_single": 1.0}, {"serving": {"cost": None, "why_no_costs": "nothing is run"}}) == {}
