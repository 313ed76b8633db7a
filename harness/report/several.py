"""The reports of several runs, written side by side: a report takes seconds, and each a core of its own."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import cpu_count, get_context
from pathlib import Path

from harness.engines.processes import deaf_to_ctrl_c, shut_down
from harness.registry import COSTS, METRICS
from harness.report.document import write_report


def write_reports(folders: Iterable[Path], count: int) -> Generator[tuple[Path, Path], None, None]:
    """Write the reports of finished runs; each is begun when its folder comes, several are yielded when all have come.

    What goes wrong with a report, or with ``folders``, is raised after all others.

    Args:
        folders: of runs, as they are finished.
        count: how many are expected. The last ones' are written here, as many others as there are other cores in
            processes of their own: each takes seconds of imports.

    Yields:
        The folder and its report.html, in the order of the folders.
    """
    if count == 1:
        for folder in folders:
            yield folder, write_report(folder)
        return
    fault: Exception | None = None
    reports: list[tuple[Path, Future[Path]]] = []
    elsewhere = max(1, min(count, cpu_count() or 1) - 1)
    others = ProcessPoolExecutor(elsewhere, mp_context=get_context("spawn"))
    try:
        with deaf_to_ctrl_c():
            others.submit(_get_ready)  # it imports beside the run, not after it
        try:
            for position, folder in enumerate(folders):
                if position >= elsewhere:
                    reports.append((folder, _written(folder)))
                    continue
                with deaf_to_ctrl_c():
                    reports.append((folder, others.submit(write_report, folder)))
        except Exception as error:
            fault = error
        for folder, report in reports:
            if (broken := report.exception()) is None:
                yield folder, report.result()
            elif isinstance(broken, Exception):
                fault = fault or broken
    finally:
        shut_down(others)
    if fault:
        raise fault


def _get_ready() -> None:
    gc.set_threshold(100_000, 20, 20)  # as the command does
    _ = METRICS.all(), COSTS.all()  # with this module, nearly all that a report imports
    atexit.register(gc.freeze)  # as the command does: its end is waited for


def _written(folder: Path) -> Future[Path]:
    done: Future[Path] = Future()
    done.set_result(write_report(folder))
    return done
