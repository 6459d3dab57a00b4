"""Sweeps in processes of their own, to be killed, and what their folders may hold afterwards."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.machine.processes import MARK, carriers
from harness.sweep.process import ROOT
from results.store import load_rows

STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in_worker.py")))
RUN = "PARDEC_TEST_RUN"
"""Environment variable by which every process of a started sweep is found."""
TAKEN = (
    "throughput_images_per_s",
    "throughput_repeats",
    "throughput_samples",
    "throughput_best_images_per_s",
    "throughput_best_batch",
    "throughput_by_batch",
    "latency_s",
    "latency_interval_s",
    "latency_samples_s",
    "latency_percentiles_s",
    "warmup_s",
    "steady",
    "stopped_by",
    "compile_s",
    "energy_per_image_j",
    "calibration_s",
    "phases_s",
    "peak_bytes",
    "peak_bytes_by_batch",
    "started_at",
    "wall_s",
)
"""Fields of a row that are read off a clock, a meter or the resident size: two runs agree in which of them
are null, and of mappings in the keys. All others are equal."""
SWEEP = """
import signal, sys
from pathlib import Path
from harness.cell.cell import Cell
from harness.sweep.sweep import run_sweep
from harness.cell.sweep_file import Sweep
signal.signal(signal.SIGHUP, signal.{hangup})
cells = [Cell("lpd", label=label, seed=seed, threads=1) for seed, label in enumerate({labels})]
sys.exit(run_sweep(Sweep("test", "test", tuple(cells)), Path(sys.argv[1]), sys.argv[2:]).exit_code)
"""


def stand_in_sweep(labels: list[str], folder: Path, hangup: str = "SIG_DFL") -> list[str]:
    """The command of a sweep of stand-in cells with these labels; hangup: what it inherits for SIGHUP."""
    return [sys.executable, "-c", SWEEP.format(labels=labels, hangup=hangup), str(folder), *STAND_IN]


@dataclass(frozen=True)
class Running:
    """A sweep at work; ``mark`` is in the environment of all its processes."""

    process: subprocess.Popen[str]
    mark: str

    def workers(self) -> list[int]:
        """The processes that measure a cell now."""
        found = []
        for child in children(self.process.pid):
            try:
                environment = Path(f"/proc/{child}/environ").read_bytes()
            except OSError:
                continue
            if f"{MARK}=".encode() in environment:
                found.append(child)
        return found

    def ended(self) -> tuple[int, str]:
        """Waits for the end: exit status and stderr."""
        _, stderr = self.process.communicate(timeout=900)
        return self.process.returncode, stderr

    def survivors(self, patience_s: float = 60.0) -> list[int]:
        """Processes of the sweep that do not end in time; one that is just being started does so as soon as
        it has imported what it needs to look for its parent."""
        end = time.monotonic() + patience_s
        while (found := carriers(self.mark, RUN)) and time.monotonic() < end:
            time.sleep(0.01)
        return found


@contextmanager
def running(command: list[str], mark: str) -> Iterator[Running]:
    """Start a sweep; whatever is left of it at the end is killed."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {RUN: mark},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Running(process, mark)
    finally:
        process.kill()
        process.communicate()
        for left in carriers(mark, RUN):
            os.kill(left, 9)


def gone(pid: int, patience_s: float = 10.0) -> bool:
    """Whether the process ends in time; a zombie has ended."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def children(pid: int) -> list[int]:
    try:
        return [
            int(child)
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
        ]
    except OSError:
        return []


def wait_until(reached: Callable[[], Any], patience_s: float = 60.0) -> Any:
    """The first true answer; AssertionError where none comes in time."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        answer = reached()
        if answer:
            return answer
        time.sleep(0.005)
    raise AssertionError(f"waited {patience_s} s in vain")


def lines_in(folder: Path) -> int:
    rows = folder / "rows.jsonl"
    return rows.read_bytes().count(b"\n") if rows.exists() else 0


def content_of(folder: Path) -> dict[str, Any]:
    """All that two undisturbed runs of a sweep leave alike: rows by cell, arrays by file, names of files."""
    rows = load_rows(folder)
    assert lines_in(folder) == len(rows)  # no cell twice
    arrays = {}
    for path in sorted(folder.rglob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            arrays[path.relative_to(folder).as_posix()] = {
                name: (file[name].dtype.str, file[name].shape, file[name].tobytes()) for name in file.files
            }
    return {
        "rows": {row.cell: _without_times(asdict(row)) for row in rows},
        "arrays": arrays,
        "files": sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()),
    }


def _without_times(values: dict[str, Any]) -> dict[str, Any]:
    kept = {}
    for name, value in values.items():
        if name == "attempts":  # a disturbed run has more of them; the last one is what the row tells
            kept[name] = {"last": (value[-1]["status"], value[-1]["reason"])}
        elif name == "turns" and value is not None:
            kept[name] = {"reference": value["reference"], "batch": value["batch"]}
        elif name == "throughput_interval":  # null if all but one batch was on disk before a kill
            continue
        elif name == "unmeasured":
            kept[name] = {key: why for key, why in value.items() if key != "throughput_interval"}
        elif name in TAKEN:
            kept[name] = sorted(value) if isinstance(value, dict) else value is None
        else:
            kept[name] = value
    return kept
