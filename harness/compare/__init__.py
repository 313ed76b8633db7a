"""Two finished runs side by side."""

from harness.compare.runs import Comparison, RunComparison, as_json, compare
from harness.compare.table import as_rows, notes

__all__ = ["Comparison", "RunComparison", "as_json", "as_rows", "compare", "notes"]
