"""What a machine of a cluster does with a task: a fresh worker process per cell, in a folder of its own.

The files that a row names travel back as bytes, because the driver's folder of results need not be visible
here. Images of published networks are too large for that (10 GB of ImageNet): they are written, shard by
shard, to the driver's folder, which then has to be on a file system that all machines share.
"""

import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.machine.environment import environment, git_state, version
from harness.sweep.cluster.driver import Delivery, Task
from harness.sweep.lock import LOCK
from harness.sweep.process import WORKER, Outcome, TurnGroup, run_in_worker, run_turns
from results.merge import copy_whole
from results.store import ARTIFACTS

IMAGES = "images"
_LOG_BYTES = 1 << 20
"""Most of a failed worker's log that is sent back: its end."""


def run_task(task: Task, results: Path, machine: str, command: Sequence[str] | None = None) -> Delivery:
    """Run a task on this machine.

    results: the driver's folder, as the driver names it. command: the worker to run instead of ours.
    """
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    cell = task.cells[0]
    group = None if task.rounds is None else TurnGroup(task.cells, task.rounds, task.processes, task.chosen)
    with tempfile.TemporaryDirectory(prefix="pardec-") as place:
        folder = Path(place)
        (folder / ARTIFACTS).mkdir()
        references = _references()
        known = _lend(references, folder / ARTIFACTS)
        if group is None and cell.is_published:
            if not sees(results):
                return Delivery(_without_images(results), started_at, machine, {})
            (results / IMAGES).mkdir(exist_ok=True)
            (folder / IMAGES).symlink_to(results / IMAGES)
        log = folder / (f"{cell.key}.log" if group is None else f"in-turn-{cell.key}.log")
        if group is None:
            outcome = run_in_worker(cell, folder, log, command=command or WORKER)
        else:
            outcome = run_turns(group, folder, log, command=command or WORKER)
        outcome = replace(outcome, measured={"environment": environment()} | outcome.measured)
        files = {
            Path(name).name: (folder / name).read_bytes()
            for name in set((outcome.measured.get("artifacts") or {}).values())
        }
        if outcome.status != "ok":
            files[log.name] = log.read_bytes()[-_LOG_BYTES:]
        _keep(folder / ARTIFACTS, references, known)
    return Delivery(outcome, started_at, machine, files)


def describe(results: Path, token: str) -> dict[str, Any]:
    """This machine as the driver checks it before a sweep: its name, pardec's version and the state of its
    checkout, and what it sees.

    token: name of a file that the driver has put into ``results``.
    """
    return {
        "host": platform.node(),
        "pardec": version("pardec"),
        "git": git_state(),
        "shared": (results / token).is_file(),
    }


def sees(results: Path) -> bool:
    """Whether the driver's folder of results is there, with the lock that the running sweep holds."""
    return (results / LOCK).is_file()


def _without_images(results: Path) -> Outcome:
    reason = (
        f"images of published networks are kept in the folder of results, and {platform.node()} doesn't see "
        f"'{results}': choose a --results on a file system that all machines share"
    )
    return Outcome("error", reason, {"environment": environment()}, 0.0)


def _references() -> Path | None:
    """Where this machine keeps what it read off reference images between cells; None if it isn't ours."""
    folder = Path(tempfile.gettempdir()) / f"pardec-references-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder if folder.stat().st_uid == os.getuid() and not folder.is_symlink() else None


def _lend(references: Path | None, artifacts: Path) -> set[str]:
    """Link the kept statistics, which are named by their content's key, into a cell's folder."""
    names = set()
    for path in references.glob("reference-*.npz") if references is not None else ():
        (artifacts / path.name).symlink_to(path)
        names.add(path.name)
    return names


def _keep(artifacts: Path, references: Path | None, known: set[str]) -> None:
    for path in artifacts.glob("reference-*.npz") if references is not None else ():
        if path.name not in known:
            assert references is not None
            copy_whole(path, references / path.name)
