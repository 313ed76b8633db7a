"""Others' formats of predictions, turned into files that a suite's pool of predictions reads."""

from __future__ import annotations

from harness.imports.format import Asked, Format, Given, choose_format, read_given
from harness.imports.imported import Imported
from harness.imports.writing import write_pool

__all__ = ["Asked", "Format", "Given", "Imported", "choose_format", "read_given", "write_pool"]
