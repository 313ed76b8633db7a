"""The laws that a plug-in's declarations keep: ``check_metric("mcc")`` runs them all, ``laws("metric")`` lists them."""

from harness.checks.engines import check_engine
from harness.checks.law import BrokenLaw, Law, laws
from harness.checks.methods import check_method
from harness.checks.metrics import check_metric

__all__ = ["BrokenLaw", "Law", "check_engine", "check_method", "check_metric", "laws"]
