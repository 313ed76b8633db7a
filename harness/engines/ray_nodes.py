"""What runs on the nodes of a Ray cluster: the share of a node that a worker holds, and the host of its processes."""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Literal

from harness.engines.engine import Job, Outcome, Place, attempt
from harness.engines.order import LOOK
from harness.engines.processes import THREADS, Pools

VISIBLE = "CUDA_VISIBLE_DEVICES"
State = Literal["done", "late", "died", "refused"]


class Share:
    """An actor that holds one worker's share of a node, a core and perhaps a GPU, for as long as it lives."""

    def where(self) -> tuple[str, str | None]:
        """The id of its node, and the value of ``CUDA_VISIBLE_DEVICES`` with its GPUs alone; None where it has none."""
        import ray

        context = ray.get_runtime_context()
        gpus = context.get_accelerator_ids().get("GPU", [])
        return context.get_node_id(), ",".join(map(str, gpus)) or None


class Host:
    """An actor with the processes of one node: one server, which all are forked from as on a machine of one's own.

    Jobs and outcomes pass through it as bytes: it imports nothing that they are made of, torch neither.

    Args:
        folder: that the command was started in.
        preload: modules that the server imports.
    """

    def __init__(self, folder: str, preload: Sequence[str]) -> None:
        vars(sys.modules["__main__"]).pop("__file__", None)  # Ray's program: each process would run it when it begins
        self.fault: str | None = None
        try:
            os.chdir(folder)  # paths of suites are of it
        except OSError as error:
            self.fault = f"it has no folder {folder} ({error.strerror})"
        if not os.environ.get(VISIBLE, "all"):  # Ray may hide GPUs from who holds none; jobs bring their own
            del os.environ[VISIBLE]
        os.environ.update(dict.fromkeys(THREADS, "1"))
        self.preload = preload
        self.pools: dict[int, Pools] = {}

    async def meet(self, meetings: bytes, node: str) -> tuple[State, Any]:
        """The facts of this machine, from a new process, pickled; or why it cannot do a run's work."""
        if self.fault:
            return "refused", self.fault
        state, value = await self._call(Pools(1, self.preload), "alone", None, _meet, meetings, node)
        return ("refused", value) if isinstance(value, str) else (state, value)

    async def run(
        self, worker: int, gpus: str | None, sent: bytes, place: Place, limit: float | None
    ) -> tuple[State, Any]:
        """Run a pickled job in a process of a worker's; its pickled outcome, or what became of the process."""
        if worker not in self.pools:
            self.pools[worker] = Pools(1, self.preload, {VISIBLE: gpus} if gpus else {})
        return await self._call(self.pools[worker], place, limit, _attempt, sent)

    async def waited(self, worker: int) -> float:
        """Seconds that a worker's job has waited until now for what another run makes."""
        pools = self.pools[worker]
        return max(map(pools.waited, pools.waits), default=0.0)

    async def _call(
        self, pools: Pools, place: Place, limit: float | None, function: Any, *arguments: Any
    ) -> tuple[State, Any]:
        since = time.monotonic()
        try:
            sent = pools.call(place, function, *arguments)
            called, left = asyncio.wrap_future(sent), limit
            while (await asyncio.wait([called], timeout=left))[1]:
                assert limit is not None
                left = since + limit + pools.waited(sent) - time.monotonic()
                if left <= 0:
                    called.cancel()
                    pools.end(place)  # the process may be stopped, or deep in C, and then hears nothing else
                    return "late", None
                left = max(left, LOOK)
            return "done", await called
        except BrokenProcessPool:
            pools.end(place)
            return "died", None

    async def stop(self) -> None:
        """End all processes at once."""
        for pools in self.pools.values():
            for place in list(pools.pools):
                pools.end(place)


def _attempt(sent: bytes) -> bytes:
    """In a process of a worker's: run a pickled job; its outcome, pickled."""
    try:
        job: Job = pickle.loads(sent)
    except Exception as error:  # its code is not importable here
        return pickle.dumps(_not_sent(error))
    outcome = attempt(job)
    try:
        return pickle.dumps(outcome)
    except Exception as error:
        return pickle.dumps(_not_sent(error))


def _not_sent(error: Exception) -> Outcome:
    return Outcome(error=f"{type(error).__name__}: {error}")


def _meet(meetings: bytes, node: str) -> bytes | str:
    from harness.engines.agreement import facts, why_not_shared

    return why_not_shared(pickle.loads(meetings), node) or pickle.dumps(facts())
