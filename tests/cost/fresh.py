"""Scripts in fresh processes as the engine makes them for measurements: forked from one that has imported it all."""

import contextlib
import io
import sys

from harness.engines.engine import Job
from harness.engines.local import LocalEngine

PRELOAD = ("harness.run.preload",)
"""What runs of images ask for, so that their server of processes is this one."""


def printed(script: str, *arguments: str) -> str:
    """What a script prints in a process of its own, given ``sys.argv[1:]``; fails with its traceback."""
    job = Job("script", _execute, {"script": script, "arguments": arguments}, place="alone")
    outcome = LocalEngine(1, PRELOAD).run([job], lambda *_: None)["script"]
    assert outcome.error is None, outcome.trace
    said: str = outcome.value
    return said


def _execute(script: str, arguments: tuple[str, ...]) -> str:
    sys.argv = ["script", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(script, {"__name__": "__main__"})
    return said.getvalue()
