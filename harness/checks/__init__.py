"""The laws that a plug-in's declarations keep: ``check_metric("mcc")`` runs them all, ``laws("metric")`` lists them."""

from harness.checks.law import BrokenLaw, law, laws
from harness.checks.methods import check_method

__all__ = ["BrokenLaw", "check_method", "law", "laws"]
