"""The machines of a Ray cluster, one cell per device: a GPU is a Ray resource, as are a cell's threads.

Ray carries tasks and results; the cell itself runs in a worker process of ours, as it does locally. Tasks are
never retried by Ray (``max_retries=0``): which cell is sent again is for ``remote`` to say and to record.
"""

import os
import socket
import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.cell.cell import Cell
from harness.machine.environment import git_state, version
from harness.machine.failures import classify
from harness.sweep.cluster.driver import Delivery, Lost, Task
from harness.sweep.cluster.on_node import describe, run_task
from harness.sweep.process import Outcome
from pardec.errors import UserError

AUTO = "auto"
_CONNECT_S = 5.0
_PROBE_S = 60.0


def require_ray() -> ModuleType:
    """The ray module; UserError where it isn't installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray needs Ray: pip install 'pardec[ray]'") from None
    return ray


@dataclass(frozen=True)
class Need:
    """What a task takes of a node."""

    cpus: int
    gpus: int

    @classmethod
    def of(cls, cell: Cell) -> "Need":
        """A cell on CUDA takes a GPU and one core; one on the CPU as many cores as it has threads."""
        return cls(1, 1) if cell.device == "cuda" else cls(cell.threads or 1, 0)

    def __str__(self) -> str:
        return "a GPU" if self.gpus else f"{self.cpus} CPU{'' if self.cpus == 1 else 's'}"


@dataclass(frozen=True)
class Node:
    """A node of the cluster with its resources, used or not."""

    id: str
    address: str
    cpus: int
    gpus: int

    def holds(self, need: Need) -> bool:
        return self.cpus >= need.cpus and self.gpus >= need.gpus

    def said(self, needs: Collection[Need]) -> str:
        """Its resources, and how many tasks of each need it runs at once."""
        at_once = [f"{self.at_once(need)} cells that take {need}" for need in sorted(needs, key=str)]
        return f"{self.cpus} CPUs, {self.gpus} GPUs; at once {' or '.join(at_once)}"

    def at_once(self, need: Need) -> int:
        return min(self.cpus // need.cpus, self.gpus // need.gpus if need.gpus else self.cpus)

    def without(self, needs: Iterable[Need]) -> "Node":
        """What is left of the node while tasks of these needs run on it."""
        taken = list(needs)
        cpus, gpus = sum(need.cpus for need in taken), sum(need.gpus for need in taken)
        return Node(self.id, self.address, self.cpus - cpus, self.gpus - gpus)


def choose(nodes: Iterable[Node], need: Need, machine: str | None = None) -> Node | None:
    """The node with most room for ``need``, for want of GPUs if none is needed; None where none has room."""
    fitting = [node for node in nodes if node.holds(need) and machine in (None, node.id)]
    return max(fitting, key=lambda node: (need.gpus > 0 or node.gpus == 0, node.cpus), default=None)


def nodes_at(address: str) -> list[Node]:
    """The nodes of the cluster there, which is left again; UserError where there is none."""
    ray = require_ray()
    _connect(ray, address)
    try:
        return _alive(ray)
    finally:
        ray.shutdown()


def _alive(ray: ModuleType) -> list[Node]:
    return [
        Node(
            one["NodeID"],
            one["NodeManagerAddress"],
            int(one["Resources"].get("CPU", 0)),
            int(one["Resources"].get("GPU", 0)),
        )
        for one in ray.nodes()
        if one["Alive"]
    ]


class RayPool:
    """A pool over the cluster at ``address``, for one sweep into ``folder``; a context that ends with it.

    command: the worker to run instead of ours. Raises UserError where Ray or the cluster isn't there.
    """

    def __init__(self, address: str | None, folder: Path, command: Sequence[str] | None = None) -> None:
        self.ray = require_ray()
        self.folder = folder.absolute()
        self.command = None if command is None else tuple(command)
        self._sent: dict[int, tuple[Any, Node, Need]] = {}
        self._count = 0
        _connect(self.ray, address or AUTO)
        self._run = self.ray.remote(run_task)
        self._nodes = _alive(self.ray)

    def __enter__(self) -> "RayPool":
        return self

    def __exit__(self, *error: object) -> None:
        """Stop what still runs, and leave the cluster."""
        for reference, _, _ in self._sent.values():
            self.ray.cancel(reference, force=True)
        self.ray.shutdown()

    def check(self, cells: Sequence[Cell]) -> None:
        """UserError, before anything runs, where the nodes can't run the cells as they stand."""
        nodes, used = self._nodes, set()
        for cell in cells:
            if cell.device not in ("cpu", "cuda"):
                raise UserError(
                    f"cell '{cell.describe()}': device = '{cell.device}': Ray deals the GPUs, say cuda"
                )
            need = Need.of(cell)
            used |= {node for node in nodes if node.holds(need)}
            if not any(node.holds(need) for node in nodes):
                most = max((node.cpus for node in nodes), default=0)
                found = "no node has one" if need.gpus else f"the largest node has {most}: choose --threads"
                raise UserError(f"cell '{cell.describe()}' needs {need}, and {found}")
        self._check_nodes(sorted(used, key=lambda node: node.id), any(cell.is_published for cell in cells))

    def could_run(self, task: Task) -> bool:
        return choose(self._nodes, Need.of(task.cells[0]), task.machine) is not None

    def has_room(self, task: Task) -> bool:
        return self._place(task) is not None

    def submit(self, task: Task) -> int:
        need, node = Need.of(task.cells[0]), self._place(task)
        assert node is not None  # the caller asked whether there is room
        run = self._run.options(
            num_cpus=need.cpus,
            num_gpus=need.gpus,
            max_retries=0,
            scheduling_strategy=self._on(node.id, must=task.machine is not None),
        )
        self._count += 1
        self._sent[self._count] = (run.remote(task, self.folder, node.id, self.command), node, need)
        return self._count

    def wait(self, timeout_s: float) -> list[tuple[int, Delivery | Lost]]:
        self._nodes = _alive(self.ray)
        if not self._sent:
            time.sleep(timeout_s)
            return []
        numbers = {reference: number for number, (reference, _, _) in self._sent.items()}
        ready, _ = self.ray.wait(list(numbers), timeout=timeout_s)
        found = []
        for reference in ready:
            _, node, _ = self._sent.pop(numbers[reference])
            found.append((numbers[reference], self._arrival(reference, node)))
        return found

    def _arrival(self, reference: Any, node: Node) -> Delivery | Lost:
        errors = self.ray.exceptions
        try:
            delivery: Delivery = self.ray.get(reference)
            return delivery
        except errors.OutOfMemoryError as error:
            outcome = Outcome("oom", f"Ray stopped it: {_one_line(error)}", {}, 0.0)
        except errors.RayTaskError as error:
            outcome = Outcome(*classify(error.cause), {}, 0.0)
        except errors.RayError as error:
            return Lost(
                f"node {node.address} ({node.id[:8]}) or its process was lost: {type(error).__name__}"
            )
        return Delivery(outcome, "", node.id, {})

    def _place(self, task: Task) -> Node | None:
        free = [
            node.without(need for _, at, need in self._sent.values() if at.id == node.id)
            for node in self._nodes
        ]
        return choose(free, Need.of(task.cells[0]), task.machine)

    def _on(self, node: str, must: bool) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node, soft=not must)

    def _check_nodes(self, nodes: Sequence[Node], keeps_images: bool) -> None:
        """That the nodes run this pardec and, where images are kept, see the folder of results."""
        token = f".seen-{uuid.uuid4().hex}"
        (self.folder / token).touch()
        try:
            probe = self.ray.remote(describe)
            asked = [
                probe.options(
                    num_cpus=0, max_retries=0, scheduling_strategy=self._on(node.id, must=True)
                ).remote(self.folder, token)
                for node in nodes
            ]
            found = self.ray.get(asked, timeout=_PROBE_S)
        except self.ray.exceptions.RayError as error:
            raise UserError(f"a node of the cluster can't run pardec: {_one_line(error)}") from None
        finally:
            (self.folder / token).unlink()
        for one in found:
            check_code(one)
            if keeps_images and not one["shared"]:
                raise UserError(
                    f"images of published networks are kept in the folder of results, and node {one['host']} "
                    f"doesn't see '{self.folder}': choose a --results on a file system that all nodes share"
                )


def check_code(node: Mapping[str, Any]) -> None:
    """UserError for a node, as ``describe`` tells of it, that runs another pardec than this machine.

    Of one version, two checkouts are compared; what is installed without one tells no commit.
    """
    own, state = version("pardec"), git_state()
    if node["pardec"] != own:
        raise UserError(
            f"node {node['host']} has pardec {node['pardec']}, this machine {own}: install one version"
        )
    if None not in (node["git"][0], state[0]) and node["git"] != state:
        raise UserError(
            f"node {node['host']} runs {_checkout(node['git'])}, this machine {_checkout(state)}: check out "
            "one commit, without changes"
        )


def _checkout(state: tuple[str | None, bool | None]) -> str:
    commit, dirty = state
    return f"commit {str(commit)[:12]}{' with changes' if dirty else ''}"


def _connect(ray: ModuleType, address: str) -> None:
    """Join the cluster as a driver; UserError where none answers."""
    if address != AUTO:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or "/" in address:
            raise UserError(f"--address '{address}': expected HOST:PORT of a Ray cluster's head, or {AUTO}")
        try:
            # Ray itself would try for minutes.
            socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
        except (OSError, OverflowError) as error:
            raise UserError(f"--address '{address}': no Ray cluster answers there ({error})") from None
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        hint = "start one with 'ray start --head', or name its --address" if address == AUTO else "is it Ray?"
        raise UserError(f"no Ray cluster at '{address}': {_one_line(error)}; {hint}") from None


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
