"""Imported once by the server that workers are forked from: all of them have the code that the run began with.

A source file that is edited while a run goes on then changes neither what is computed nor what it is called.
"""

from harness.registry import COSTS, ENGINES, KINDS, METHODS, METRICS, SOURCES
from harness.run import graph  # noqa: F401
from harness.store import read_code

for _registry in (METHODS, METRICS, COSTS, KINDS, SOURCES, ENGINES):
    _registry.all()
read_code()
