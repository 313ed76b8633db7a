"""The report, from a finished run alone."""

from harness.report.document import write_report

__all__ = ["write_report"]
