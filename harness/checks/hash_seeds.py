"""The outputs of methods under another PYTHONHASHSEED, which only a new process has.

As a program (``python -m harness.checks.hash_seeds CASES``) it takes cases as JSON and prints what each gives.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from harness.checks.pools import built, on_test, pool_for
from harness.registry import METHODS
from harness.systems.dropout import hash_of

Case = tuple[str, str, dict[str, Any]]
"""The module that declares a method, the method's name, and parameters."""


def differing(cases: Sequence[Case]) -> list[str | None]:
    """For each case, what is wrong; None where processes with two hash seeds gave the same output, to the bit.

    Raises:
        RuntimeError: a process failed as a whole.
    """
    processes = [_start(seed, json.dumps(cases)) for seed in ("1", "2")]
    first, second = [_outputs(process) for process in processes]
    return [
        None if one == other and one.startswith("output ") else f"two hash seeds gave '{one}' and '{other}'"
        for one, other in zip(first, second, strict=True)
    ]


def _start(hash_seed: str, cases: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    command = [sys.executable, "-m", __name__, cases]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _outputs(process: subprocess.Popen[str]) -> list[str]:
    printed, said = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a process with another hash seed failed: {said.strip()[-500:]}")
    found: list[str] = json.loads(printed.splitlines()[-1])  # a module may print when it is imported
    return found


def _output(module: str, name: str, parameters: dict[str, Any]) -> str:
    try:
        if name not in METHODS.all():  # declared by a module that is not installed as a plug-in
            importlib.import_module(module)
        method = METHODS.get(name)
        return f"output {hash_of(on_test(built(method, parameters, pool_for(method))))}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    print(json.dumps([_output(*case) for case in json.loads(sys.argv[1])]))
