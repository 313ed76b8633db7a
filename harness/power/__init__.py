"""Whether a suite can decide a policy's margins."""

from harness.power.rules import DISCORDANCE, POWER, RulePower, rule_powers
from harness.power.table import COLUMNS, as_rows

__all__ = ["COLUMNS", "DISCORDANCE", "POWER", "RulePower", "as_rows", "rule_powers"]
