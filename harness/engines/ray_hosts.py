"""The nodes of a Ray cluster, and the hosts of a run's processes on them, as the machine of the command sees them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from harness.engines.agreement import SHARE, Facts, Meeting, check_answers, check_facts, facts
from harness.engines.ray_nodes import Host
from harness.errors import BadInput


@dataclass(frozen=True)
class Node:
    """A machine of the cluster that can run jobs."""

    id: str
    name: str
    cores: int
    workers: int
    """That it has room for when nothing else runs on it."""


def nodes(ray: Any, gpus: int) -> list[Node]:
    """Those with a core and as many GPUs as a worker needs, by name."""
    found = []
    for node in ray.nodes():
        has = node["Resources"]
        cores, devices = int(has.get("CPU", 0)), int(has.get("GPU", 0))
        if node["Alive"] and (workers := min(cores, devices // gpus) if gpus else cores):
            found.append(Node(node["NodeID"], node["NodeManagerHostname"] or node["NodeName"], cores, workers))
    return sorted(found, key=lambda node: (node.name, node.id))


def capacity(ray: Any, gpus: int) -> int:
    """How many workers the cluster has room for when nothing else runs on it; ``BadInput`` where for none."""
    if not (room := sum(node.workers for node in nodes(ray, gpus))):
        raise BadInput(f"no node of the Ray cluster has a {'core and a GPU' if gpus else 'core'} for a worker")
    return room


def measuring_node(ray: Any, hosts: Hosts, gpus: int) -> Node:
    """The node that measures: this one, or the first of the same sort where this one runs no jobs.

    Raises:
        BadInput: there is none, and what another sort of machine measured would be taken for this one's.
    """
    here, known = ray.get_runtime_context().get_node_id(), nodes(ray, gpus)
    if own := next((node for node in known if node.id == here), None):
        return own
    mine = facts().machine
    for node in known:
        with suppress(ray.exceptions.RayError):  # it is lost
            if hosts.on(node.id).facts(ray).machine == mine:
                return node
    problem = "no node that runs jobs is a machine like this one, and its measurements would be taken for this one's"
    raise BadInput(problem, hint="start the command on such a node, or ask for no costs in the suite")


class Hosts:
    """The hosts of a run's processes, one for each node that is used; each has shown that it agrees with this machine.

    Args:
        ray: the module, joined to a cluster.
        preload: modules that the processes need.
        meetings: where this machine and the nodes do, as ``agreement.meetings`` has them.
    """

    def __init__(self, ray: Any, preload: Sequence[str], meetings: Sequence[Meeting]) -> None:
        self.ray, self.preload, self.meetings = ray, tuple(preload), meetings
        self.known: dict[str, HostOf] = {}

    def on(self, node: str) -> HostOf:
        """That of a node, which is asked for if it is new."""
        if node not in self.known:
            self.known[node] = HostOf(self, node)
        return self.known[node]

    def forget(self, host: HostOf) -> None:
        """It is dead, or does not answer: the node has another one from now on."""
        with suppress(Exception):
            self.ray.kill(host.actor)
        if self.known.get(host.node) is host:
            del self.known[host.node]

    def end(self) -> None:
        """End all processes on all nodes, whatever they do."""
        asked = [host.actor.stop.remote() for host in self.known.values()]
        with suppress(Exception):
            self.ray.wait(asked, num_returns=len(asked), timeout=5.0)
        for host in list(self.known.values()):
            self.forget(host)


class HostOf:
    """The host of one node."""

    def __init__(self, hosts: Hosts, node: str) -> None:
        ray, self.meetings, self.node = hosts.ray, hosts.meetings, node
        named = {each["NodeID"]: each["NodeManagerHostname"] or each["NodeName"] for each in ray.nodes()}
        self.name = named.get(node, node)
        there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        made = ray.remote(Host).options(num_cpus=0, scheduling_strategy=there, max_concurrency=1000)
        self.actor = made.remote(os.getcwd(), hosts.preload)
        self.met: Future[Any] = self.actor.meet.remote(pickle.dumps(self.meetings), node).future()
        self.known: Facts | None = None

    def facts(self, ray: Any) -> Facts:
        """What its machine says of itself, which agrees with this one; waits for it.

        Raises:
            BadInput: its machine does not agree, or sees other folders.
            RayError: it is dead.
        """
        if self.known is None:
            try:
                state, value = self.met.result()
            except ray.exceptions.RayTaskError as error:
                problem = f"no process of Stockpot starts: {str(error.cause or error).strip().splitlines()[-1]}"
                raise BadInput(problem, place=f"node {self.name}", hint="install the same on all nodes") from error
            if state == "refused":
                raise BadInput(value, place=f"node {self.name}", hint=SHARE)
            if state != "done":
                raise ray.exceptions.RayActorError(error_msg=f"a process on node {self.name} died as it started")
            told: Facts = pickle.loads(value)
            check_facts(self.name, told)
            check_answers(self.meetings, self.name, self.node)
            self.known = told
        return self.known
