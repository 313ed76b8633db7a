"""Imported once by the server that workers are forked from: all of them have the code that the run began with.

A source file that is edited while a run goes on then changes neither what is computed nor what it is called.
"""

from harness.keys import code_version, read_code
from harness.registry import COSTS, ENGINES, KINDS, METHODS, METRICS, SOURCES, module_of
from harness.run import graph  # noqa: F401

for _registry in (METHODS, METRICS, COSTS, KINDS, SOURCES, ENGINES):
    for _declared in _registry:
        code_version(module_of(_declared))
read_code()
