"""Where the command begins: Ctrl-C ends it in a line while it still imports, which takes most of a second.

This module, and the packages around it, import nothing that takes time.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn

STOPPED = "stopped; what is whole is kept: run the same command again"


def start() -> None:
    """The ``stockpot`` command."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a job in the background may hear none
        signal.signal(signal.SIGINT, end_at_once)
    from harness.cli.main import main

    main()


def end_at_once(number: int, frame: FrameType | None) -> NoReturn:
    """End the process: what is raised in an import may be taken for an error of the module, and there is nothing yet
    that would have to be undone."""
    os.write(2, f"stockpot: {STOPPED}\n".encode())
    os._exit(128 + number)
