"""Imported once by the server that workers are forked from: all of them have the code that the run began with.

A source file that is edited while a run goes on then changes neither what is computed nor what it is called.
"""

from harness.registry import COSTS, METHODS, METRICS
from harness.run import jobs, measuring  # noqa: F401
from harness.store import code_version

for _module in (*(each.module for declared in (METHODS, METRICS, COSTS) for each in declared), *jobs.CODE):
    code_version(_module)
