"""Runs one cell in a fresh process of its own group, and turns whatever happens to it into an outcome.

Whatever the cell has started ends with it (``harness.machine.processes``).

Time is limited by the parent's clock, which waits on the pipe without spinning. Memory is limited by the
kernel (``RLIMIT_DATA``, set from outside before the worker imports anything), so that an allocation fails the
moment it asks for too much: sampling the resident size would miss short peaks and disturb the timing.
"""

import dataclasses
import json
import os
import resource
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO

from harness.cell.cell import Cell
from harness.machine.failures import says_out_of_memory
from harness.machine.processes import MARK, end_all
from harness.sweep.messages import Garbled, messages
from results.annotations import LARGEST
from results.schema import Status, Turns

WORKER = (sys.executable, "-P", str(Path(__file__).with_name("start_worker.py")))
ROOT = Path(__file__).parents[2]
_GRACE_S = 10.0
"""How long a worker that has said its last word may take to end."""
Progress = Callable[[float, str], None]
"""Called with the share of the cell that is done and what it is doing."""


@dataclass(frozen=True)
class Outcome:
    """What became of one try. ``measured`` holds the fields of a row that the worker filled in, those sent
    before a failure included."""

    status: Status
    reason: str | None
    measured: dict[str, Any]
    wall_s: float


@dataclass(frozen=True)
class TurnGroup:
    """Cells timed in turn by one process after the other, and the least number of rounds of each."""

    cells: tuple[Cell, ...]
    rounds: int
    processes: int = 1
    chosen: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Cell -> option that it leaves to measurement -> what it was measured with at its own batch."""

    @property
    def limited(self) -> Cell:
        """The first cell with the limits of all: the most time and memory that any may take."""
        limits = [cell.memory_limit_gb for cell in self.cells]
        known = [limit for limit in limits if limit is not None]
        return dataclasses.replace(
            self.cells[0],
            timeout_s=max(cell.timeout_s for cell in self.cells),
            memory_limit_gb=max(known) if len(known) == len(limits) else None,
        )


def run_in_worker(
    cell: Cell,
    folder: Path,
    log: Path,
    on_progress: Progress = lambda share, doing: None,
    command: Sequence[str] = WORKER,
    group: TurnGroup | None = None,
) -> Outcome:
    """Run ``cell`` and wait for it, at most ``cell.timeout_s`` seconds; nothing it does is raised here.

    OSError where the log can't be written or read, and for nothing else.

    folder: where its artifacts and the reference go. log: where its stderr goes. group: cells that are timed
    together instead of one being measured; ``cell`` says what they may take. The worker writes JSON lines
    to a pipe of its own, so no library's print can spoil them, and its standard input stays open as long as
    this process lives, which is how it knows.
    """
    started = time.monotonic()
    kills_before = out_of_memory_kills()
    mark = secrets.token_hex(8)
    with log.open("wb") as stderr:
        try:
            worker, reading = _start(cell, command, stderr, mark)
        except OSError as error:
            return Outcome("error", f"no worker could be started: {error.strerror}", {}, 0.0)
    known: dict[str, Any] = {}
    final, broken = None, None
    sender = Thread(target=_send_order, args=(worker, cell, folder, group), daemon=True)
    try:
        limit_memory(worker.pid, cell)
        sender.start()  # a pipe holds 64 KiB: of a longer order, a worker that hangs at import takes no more
        for message in messages(reading, worker, started + cell.timeout_s):
            known |= message.get("measured", {})
            if "status" in message:
                final = message
                break
            on_progress(message["share"], message["doing"])
        with suppress(subprocess.TimeoutExpired):
            worker.wait(_GRACE_S)
    except (OSError, Garbled) as error:
        broken = error
    finally:
        os.close(reading)
        _end(worker, mark, sender)
    wall_s = time.monotonic() - started
    status: Status
    if final is not None:
        status, reason = final["status"], final["reason"]
    elif broken is not None:
        status, reason = _cut_short(broken, cell)
    else:
        status, reason = _silent_death(worker.returncode, log, kills_before)
    if status == "oom" and cell.memory_limit_gb is not None:
        reason = f"{reason} (memory_limit_gb = {cell.memory_limit_gb:g})"
    return Outcome(status, reason, known, wall_s)


def run_turns(
    group: TurnGroup,
    folder: Path,
    log: Path,
    on_progress: Progress = lambda share, doing: None,
    command: Sequence[str] = WORKER,
) -> Outcome:
    """Time cells in turn by ``group.processes`` workers: ``turns`` holds the rounds of all of them.

    Each may take the most time and memory that any of the cells may. The first that fails is the outcome. See
    ``run_in_worker``.
    """
    outcomes = []
    for _ in range(group.processes):
        outcome = run_in_worker(group.limited, folder, log, on_progress, command, group)
        if outcome.status != "ok" or "turns" not in outcome.measured:
            return outcome
        outcomes.append(outcome)
    found = [outcome.measured["turns"] for outcome in outcomes]
    turns = {key: joined([one[key] for one in found]) for key in found[0]}
    whole = outcomes[-1].measured | {"turns": turns}
    return dataclasses.replace(outcomes[-1], measured=whole, wall_s=sum(one.wall_s for one in outcomes))


def joined(pairs: Sequence[Turns]) -> Turns:
    """The rounds of several processes that timed the same cells, as those of one."""
    return Turns(
        reference=pairs[0]["reference"],
        batch=pairs[0]["batch"],
        seconds=[seconds for pair in pairs for seconds in pair["seconds"]],
        reference_seconds=[seconds for pair in pairs for seconds in pair["reference_seconds"]],
    )


def _start(
    cell: Cell, command: Sequence[str], log: BinaryIO, mark: str
) -> tuple[subprocess.Popen[bytes], int]:
    """The worker, and the end of its pipe from which its messages are read."""
    reading, writing = os.pipe()
    try:
        worker = subprocess.Popen(
            [*command, str(writing), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(writing,),
            start_new_session=True,
            env=worker_environment(cell.threads) | {MARK: mark},
        )
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return worker, reading


def _send_order(worker: subprocess.Popen[bytes], cell: Cell, folder: Path, group: TurnGroup | None) -> None:
    order: dict[str, Any] = {"folder": str(folder), "cell": cell.to_json()}
    if group is not None:
        order |= {
            "in_turn": [one.to_json() for one in group.cells],
            "rounds": group.rounds,
            "chosen": group.chosen,
        }
    assert worker.stdin is not None
    with suppress(BrokenPipeError):
        worker.stdin.write((json.dumps(order) + "\n").encode())
        worker.stdin.flush()


def limit_memory(pid: int, cell: Cell) -> None:
    """Make the kernel refuse a CPU cell's process more data than its limit; the worker limits CUDA.

    A limit that the process has already, from ``ulimit -d``, is never raised.
    """
    if cell.memory_limit_gb is None or cell.device != "cpu":
        return
    limit = int(min(cell.memory_limit_gb * 1e9, LARGEST))
    with suppress(ProcessLookupError):
        known = resource.prlimit(pid, resource.RLIMIT_DATA)
        limit = min([limit, *(one for one in known if one != resource.RLIM_INFINITY)])
        resource.prlimit(pid, resource.RLIMIT_DATA, (limit, limit))


def worker_environment(threads: int) -> dict[str, str]:
    """The parent's environment with the thread pools sized before any library starts one, and without the
    current folder among the places of modules: an empty entry of ``PYTHONPATH`` would be it.

    How threads wait is the pools' own default, whatever a shell says: a pool that sleeps between products
    makes a full-size decode 1.3 to 1.5 times as long, and no row would tell.
    """
    waiting = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    inherited = {name: value for name, value in os.environ.items() if name not in waiting}
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    places = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    path = {"PYTHONPATH": os.pathsep.join(filter(None, places)), "PYTHONSAFEPATH": "1"}
    return inherited | dict.fromkeys(pools, str(threads or 1)) | path


def _end(worker: subprocess.Popen[bytes], mark: str, sender: Thread) -> None:
    """Leave nobody behind whom the worker started."""
    end_all(worker.pid, mark)
    if sender.is_alive():
        sender.join()  # nobody reads any more
    if worker.stdin is not None:
        with suppress(BrokenPipeError):
            worker.stdin.close()
    worker.wait()


def _cut_short(error: OSError | Garbled, cell: Cell) -> tuple[Status, str]:
    """Status and cause of a worker that was ended from here."""
    if isinstance(error, TimeoutError):
        return "timeout", f"took longer than {cell.timeout_s:g} s and was stopped"
    if isinstance(error, OSError):
        return "error", f"the worker could not be watched: {error.strerror or error}"
    return "error", str(error)


def _silent_death(code: int, log: Path, kills_before: int) -> tuple[Status, str]:
    """Status and cause of a worker that ended without its last word."""
    if code == -signal.SIGKILL and out_of_memory_kills() > kills_before:
        return "oom", "the worker was killed for want of memory"
    if says_out_of_memory(last_line(log)):
        return "oom", f"the worker ended with {code}: {last_line(log)}"
    if code < 0:
        return "error", f"the worker was ended by {signal.Signals(-code).name}"
    return "error", f"the worker ended with {code} and no result: {last_line(log)}"


def last_line(log: Path) -> str:
    """The last line of a worker's log that says anything."""
    lines = [
        line.strip()
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    ]
    return lines[-1][:300] if lines else "its log is empty"


def out_of_memory_kills() -> int:
    """How many processes the kernel has killed for memory in our control group; 0 where it doesn't say."""
    with suppress(OSError, ValueError):
        group = Path("/proc/self/cgroup").read_text(encoding="utf-8").strip().rpartition("::")[2].lstrip("/")
        for line in (
            (Path("/sys/fs/cgroup") / group / "memory.events").read_text(encoding="utf-8").splitlines()
        ):
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    with suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text(encoding="utf-8").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0
