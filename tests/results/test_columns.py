"""Columns are read from declarations: each number has one, and what is said of it anywhere follows from that."""

import math
import subprocess
import sys

import pytest

from harness.errors import BadInput
from harness.registry import METRICS
from harness.results.columns import (
    EXAMPLE_COLUMNS,
    column_of,
    difference_of,
    example_columns,
    is_column,
    numbers,
    paired,
    plugged_in,
    portable_scores,
    variant_columns,
)
from harness.results.metric import DOCUMENTS, OUTCOMES, Column, metric
from tests.evaluate.added_metrics import MCC, TOP2, declare


def test_importing_the_contract_loads_no_plug_in_and_no_torch():
    code = (
        "import sys, harness.results.columns; from harness.registry import METRICS, COSTS\n"
        "print(len(METRICS._known), len(COSTS._known), 'torch' in sys.modules, 'sklearn' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["0", "0", "False", "False"]


def test_every_number_has_a_meaning_and_its_bounds_are_columns():
    columns = variant_columns()
    for name, column in numbers().items():
        assert columns[name] == column.meaning != ""
        assert all(columns[end] == "" for end in column.bounds)
        assert column.least < column.most
        assert not is_column(column.source) or columns[column.source]
        assert column.outcome in (None, DOCUMENTS, *OUTCOMES)


@pytest.mark.parametrize(
    ("name", "better", "least", "most", "paired"),
    [
        ("accuracy", "higher", 0, 1, True),
        ("brier", "lower", 0, 2, True),
        ("aurc", "lower", 0, 1, False),
        ("diff_vs_reference", "higher", -1, 1, False),
        ("temperature", None, 0, math.inf, False),
        ("throughput_per_s", "higher", 0, math.inf, False),
        ("throughput_ratio", "lower", 0, math.inf, False),
        ("bits_per_byte", "lower", 0, math.inf, True),
        ("bits_per_byte/bytes_python", "lower", 0, math.inf, True),
        ("accuracy/inverted", "higher", 0, 1, True),
        ("acc_norm/arc_easy", "higher", 0, 1, True),
        ("exact_match,strict-match/gsm8k", "higher", 0, 1, True),
        ("word_perplexity/wikitext", "lower", -math.inf, math.inf, True),
        ("its_own/task", None, -math.inf, math.inf, True),
    ],
)
def test_what_is_known_of_a_metric_by_its_name(name, better, least, most, paired):
    found = column_of(name)
    assert (found.name, found.better, found.least, found.most) == (name, better, least, most)
    assert (found.outcome is not None) == paired


@pytest.mark.parametrize("name", ["acuracy", "accuracy_low", "verdict", "accuracy,none", ""])
def test_a_name_that_no_number_has_is_unknown(name):
    assert column_of(name) is None


def test_what_is_added_is_a_column_like_ours_and_known_to_be_a_plug_in(monkeypatch):
    before = variant_columns()
    assert plugged_in() == {}
    declare(monkeypatch, "mcc", "top2")
    assert variant_columns().items() - before.items() == {
        ("mcc", MCC.meaning), ("mcc_low", ""), ("mcc_high", ""),
        ("top2", TOP2.meaning), ("top2_low", ""), ("top2_high", ""),
        ("top2_diff", difference_of(TOP2).meaning), ("top2_diff_low", ""), ("top2_diff_high", ""),
    }  # fmt: skip
    assert plugged_in() == {"mcc": MCC, "top2": TOP2}
    assert column_of("mcc") == MCC
    assert list(example_columns()) == [*EXAMPLE_COLUMNS, "in_top2"]
    assert {"mcc", "top2", "accuracy", "nll_calibrated", "bits_per_byte"} <= set(portable_scores())
    assert not {"temperature", "mcnemar_p", "diff_vs_reference", "build_seconds"} & set(portable_scores())


def test_scores_with_a_value_for_each_document_have_differences_with_bounds(monkeypatch):
    declare(monkeypatch, "mcc", "top2")
    metric(Column("middling", "neither end is better", outcome="brier"))(lambda _: 0.0)
    assert set(paired()) == {"accuracy", "nll", "brier", "top2", "bits_per_byte"}
    columns, found = variant_columns(), numbers()
    for name, column in paired().items():
        difference = difference_of(column)
        assert difference == found[difference.name]
        assert {difference.name, *difference.bounds} <= columns.keys()
        assert (difference.better, difference.unit) == (column.better, column.unit)
        assert difference.least == -difference.most == column.least - column.most
        assert difference.name == ("diff_vs_reference" if name == "accuracy" else f"{name}_diff")
        assert difference.name not in portable_scores()


def test_a_metric_named_as_a_difference_is_refused(monkeypatch):
    declare(monkeypatch)
    metric(Column("nll_diff", "strange"))(lambda _: 0.0)
    with pytest.raises(BadInput, match=r"'nll_diff' of variants\.csv is declared twice"):
        numbers()


@pytest.mark.parametrize(
    ("name", "interval", "twice"),
    [("seed", None, "seed"), ("latency_ms_p50", None, "latency_ms_p50"), ("loss", "nll", "nll_high")],
)
def test_a_column_that_there_is_already_is_refused_with_the_module(monkeypatch, name, interval, twice):
    monkeypatch.setattr(METRICS, "_known", METRICS.all())
    metric(Column(name, "strange", interval=interval))(lambda _: 0.0)
    with pytest.raises(BadInput, match=f"'{twice}' of variants.csv is declared twice"):
        numbers()


@pytest.mark.parametrize("outcome", [*sorted(EXAMPLE_COLUMNS.keys() - set(OUTCOMES)), "in_top2"])
def test_an_outcome_that_is_filled_already_is_refused_with_the_module(monkeypatch, outcome):
    declare(monkeypatch, "top2")
    metric(Column("zero", "strange", outcome=outcome), per_example=lambda log_probs, labels: 0 * labels)(lambda _: 0.0)
    for read in (numbers, example_columns):
        with pytest.raises(BadInput, match=f"'{outcome}' of examples.parquet is declared twice"):
            read()


@pytest.mark.parametrize("source", ["nowhere_source", "guess", ""])
def test_a_source_that_there_is_not_is_refused_with_those_that_there_are(monkeypatch, source):
    declare(monkeypatch)
    metric(Column("zero", "strange", source=source))(lambda _: 0.0)
    with pytest.raises(BadInput, match=r"'zero' of variants\.csv has a source that there is not") as caught:
        numbers()
    assert {"timer", "memory_source"} <= set(caught.value.choices)


@pytest.mark.parametrize("source", ["counter", "memory_source"])
def test_a_source_that_there_is_may_be_anyones(monkeypatch, source):
    declare(monkeypatch)
    metric(Column("zero", "strange", source=source))(lambda _: 0.0)
    assert numbers()["zero"].source == source
