"""How jobs run: on the nodes of a Ray cluster, whose processes are made as on a machine of one's own."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness import environment
from harness.engines.agreement import meetings
from harness.engines.engine import Engine, Job, Outcome, Progress, engine
from harness.engines.order import run_in_order
from harness.engines.ray_hosts import Hosts, capacity, measuring_node
from harness.engines.ray_workers import RayWorkers
from harness.errors import BadInput
from harness.folders import remove_abandoned, temporary

OLDEST = (2, 54)
"""The first version of Ray that this is written for."""
INSTALL = 'pip install "stockpot[ray]"'
ADDRESS = "RAY_ADDRESS"
SESSION = "stockpot-ray"
"""What the names of folders of clusters that runs have started begin with."""
OBJECTS = 80 * 2**20
"""Bytes of Ray's own store, about the least that it takes: all that is large goes through the run's."""


@engine
class RayEngine(Engine):
    """Worker processes on the nodes of a Ray cluster, which share the command's folder or a place that it names.

    RAY_ADDRESS names the cluster; without it, one of this machine alone is started for the run. What is measured is
    measured on one node, with no job beside it.
    """

    name = "ray"

    def __init__(self, workers: int | None = None, preload: Sequence[str] = ()) -> None:
        self.check()
        self.asked = workers
        super().__init__(workers or max(1, min(environment.cores(), 16)), preload)

    @classmethod
    def check(cls) -> None:
        if find_spec("ray") is None:
            raise BadInput("Ray is not installed", place="--engine ray", hint=INSTALL)
        version = metadata.version("ray")
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
            problem = f"Ray {version} is too old; it takes {'.'.join(map(str, OLDEST))} or newer"
            raise BadInput(problem, place="--engine ray", hint=INSTALL)

    def run(self, jobs: Sequence[Job], progress: Progress) -> dict[str, Outcome]:
        """Run all jobs; one whose need failed is not run, and its error names that need.

        Jobs that run alone come after all others, each in a new process of one node, all of whose cores it holds.

        Raises:
            BadInput: the cluster cannot be reached, has no room for a worker, or a node does not agree with this
                machine about what keys depend on.
        """
        outcomes = self.outcomes = {}
        gpus = _gpus(jobs)
        folders = sorted({job.folder for job in jobs if job.folder and not job.shared})
        places = sorted({job.shared for job in jobs if job.shared})
        shared, alone = ([job for job in jobs if job.place == place] for place in ("shared", "alone"))
        with ExitStack() as stack:
            stack.enter_context(redirect_stdout(sys.stderr))  # Ray says there what befell its processes
            ray = stack.enter_context(_cluster(self.asked or self.workers))
            found = stack.enter_context(meetings(folders, places))
            room = capacity(ray, gpus)
            self.workers = (self.asked or room) if os.environ.get(ADDRESS) else min(self.workers, room)
            hosts = Hosts(ray, self.preload, found)
            stack.callback(hosts.end)
            node = measuring_node(ray, hosts, gpus) if alone else None
            if shared:
                count, share = min(self.workers, len(shared)), {"num_cpus": 1, "num_gpus": gpus}
                with RayWorkers(ray, hosts, count, share) as workers:
                    run_in_order(shared, workers, outcomes, progress)
            if node:
                whole = {"num_cpus": node.cores, "num_gpus": gpus}
                with RayWorkers(ray, hosts, 1, whole, node) as workers:
                    run_in_order(alone, workers, outcomes, progress)
        return outcomes


def _gpus(jobs: Sequence[Job]) -> int:
    """GPUs that each worker needs.

    Raises:
        BadInput: a job asks for a certain one, and Ray is to choose.
    """
    devices = {job.device for job in jobs}
    if certain := next((device for device in sorted(devices) if ":" in device), None):
        problem = f"Ray gives each worker a GPU of its own, so '{certain}' cannot be asked for"
        raise BadInput(problem, place="--device", hint="'--device cuda' takes any")
    return int("cuda" in devices)


@contextmanager
def _cluster(workers: int) -> Iterator[Any]:
    """The module ``ray``, joined to the cluster that the environment names, or to a new one of this machine."""
    address = os.environ.get(ADDRESS) or "local"
    place = f"{ADDRESS}={address}"
    if "://" in address:
        problem = "the command joins a cluster from one of its nodes, and takes its HOST:PORT or 'auto'"
        raise BadInput(problem, place=place, hint="from elsewhere, submit the command as a Ray job")
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # read when Ray is imported
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    with ExitStack() as stack:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address == "local":
            if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
                os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # of this process: nothing else joins the cluster
            own = {"num_cpus": workers, "include_dashboard": False, "object_store_memory": OBJECTS}
            options |= {**own, "_temp_dir": stack.enter_context(_session_folder())}
        try:
            _check_answers(address)
            with _own_handlers():
                ray.init(address, **options)
        except OSError as error:
            hint = "'ray start --head' on one machine begins a cluster, 'ray start --address' on others joins it"
            raise BadInput(f"no Ray cluster: {error.strerror or error}", place=place, hint=hint) from error
        except (ray.exceptions.RayError, RuntimeError, ValueError) as error:
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            hint = "is RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH, the cluster's? RAY_AUTH_MODE=disabled is for one without"
            raise BadInput(f"no Ray cluster: {said}", place=place, hint=hint) from error
        stack.callback(ray.shutdown)
        yield ray


def _check_answers(address: str) -> None:
    """``OSError`` where nothing listens at HOST:PORT: Ray would end this process after a minute."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextmanager
def _session_folder() -> Iterator[str]:
    """For the sockets and logs of a cluster of this machine; a socket's path may be about 100 characters long."""
    parent = Path(tempfile.gettempdir() if len(tempfile.gettempdir()) < 12 else "/tmp")
    remove_abandoned(parent, SESSION)
    with temporary(parent, SESSION) as folder:
        folder.chmod(0o700)
        yield str(folder)


@contextmanager
def _own_handlers() -> Iterator[None]:
    """What this process does when it is told to end, after the block too: Ray would put its own in the place."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
