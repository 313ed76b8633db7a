"""Imported once by the server that workers are forked from: all of them have the code that the run began with.

A source file that is edited while a run goes on then changes neither what is computed nor what it is called.
"""

import gc
import importlib

from harness.keys import code_version, read_code
from harness.registry import COSTS, ENGINES, KINDS, METHODS, METRICS, SOURCES, module_of

gc.disable()  # what is imported stays: to look for garbage there takes a fifth of the time; workers look for theirs
importlib.import_module("harness.run.graph")
for _registry in (METHODS, METRICS, COSTS, KINDS, SOURCES, ENGINES):
    for _declared in _registry:
        code_version(module_of(_declared))
read_code()
