"""The laws that a plug-in's declarations keep: ``check_metric("mcc")`` runs them all, ``laws("metric")`` lists them."""

from harness.checks import lacking, writing  # noqa: F401 (laws of methods register themselves)
from harness.checks.costs import check_cost
from harness.checks.engines import check_engine
from harness.checks.kinds import check_kind
from harness.checks.law import BrokenLaw, Law, laws
from harness.checks.methods import check_method
from harness.checks.metrics import check_metric
from harness.checks.sources import check_source

__all__ = [
    "BrokenLaw",
    "Law",
    "check_cost",
    "check_engine",
    "check_kind",
    "check_method",
    "check_metric",
    "check_source",
    "laws",
]
