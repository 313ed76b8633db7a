"""What a metric may declare."""

import pytest

from harness.registry import METRICS
from harness.results.metric import OUTCOMES, Column, metric
from tests.evaluate.added_metrics import TOP2, declare, in_top2, top2


@pytest.mark.parametrize("name", ["", "Top2", "top-2", "acc/sciq", "2top", "a b"])
def test_a_name_is_a_lower_case_identifier(monkeypatch, name):
    declare(monkeypatch)
    with pytest.raises(ValueError, match="lower-case"):
        metric(Column(name, "strange"))(lambda _: 0.0)
    assert name not in METRICS.all()


@pytest.mark.parametrize(
    ("outcome", "per_example", "words"),
    [
        ("in_top2", None, "nothing fills 'in_top2'"),
        (None, in_top2, "names the new column"),
        ("measures.parquet", in_top2, "names the new column"),
        *((name, in_top2, "names the new column") for name in OUTCOMES),
    ],
)
def test_an_outcome_is_filled_once(monkeypatch, outcome, per_example, words):
    declare(monkeypatch)
    with pytest.raises(ValueError, match=words):
        metric(Column("top2", "strange", outcome=outcome), per_example=per_example)(top2)


def test_a_metric_is_its_column_and_its_functions(monkeypatch):
    declare(monkeypatch, "top2")
    found = METRICS.get("top2")
    assert (found.name, found.column, found.score, found.per_example) == ("top2", TOP2, top2, in_top2)
    assert found.module == "tests.evaluate.added_metrics"
    assert TOP2.bounds == ("top2_low", "top2_high")
    assert Column("plain", "without an interval").bounds == ()
