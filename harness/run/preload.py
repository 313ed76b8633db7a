"""Imported once by the server that workers are forked from: all of them have the code that the run began with.

A source file that is edited while a run goes on then changes neither what is computed nor what it is called.
"""

from harness.registry import KINDS, METHODS, module_of
from harness.run import jobs, measuring  # noqa: F401
from harness.store import code_version

_of_kinds = (module for kind in KINDS for module in (module_of(kind), *kind.code))
for _module in (*(method.module for method in METHODS.all().values()), *jobs.CODE, *_of_kinds):
    code_version(_module.partition(":")[0])
