"""SIGKILL at random instants of a sweep, to it or to its worker: the restart ends as if nothing had been."""

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from results.store import load_rows
from tests.harness.small_published import small_presets  # noqa: F401
from tests.harness.sweeps_at_work import Running, content_of, lines_in, running, stand_in_sweep, wait_until

PATIENCE_S = 20.0


@dataclass(frozen=True)
class Kill:
    """What one SIGKILL hit and what came after."""

    victim: str
    after_s: float
    rows_before: int
    exit_status: int
    restarts: int

    def __str__(self) -> str:
        return (
            f"{self.victim:6} after {self.after_s:5.2f} s with {self.rows_before} rows: "
            f"exit {self.exit_status}, {self.restarts} restart(s)"
        )


def kill_one(run: Running, victim: str, after_s: float) -> bool:
    """Kill the sweep or its worker at an instant, or as soon after as there is one; False: it had ended."""
    time.sleep(after_s)
    if victim == "sweep":
        if run.process.poll() is not None:
            return False
        run.process.kill()
        return True
    workers = wait_until(lambda: run.workers() or run.process.poll() is not None, PATIENCE_S)
    if workers is True:
        return False
    try:
        os.kill(workers[0], signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def disturbed(
    command: Callable[[Path], list[str]], folder: Path, calm: dict[str, Any], calm_exit: int, kill: Kill
) -> Kill | None:
    """One kill and the restart; None where the sweep had ended before. Asserts that nothing is left of it."""
    with running(command(folder), f"{folder}-0") as run:
        if not kill_one(run, kill.victim, kill.after_s):
            return None
        at_kill = lines_in(folder)
        exit_status, stderr = run.ended()
        assert run.survivors() == []
    if kill.victim == "sweep":
        assert exit_status == -signal.SIGKILL
    else:  # the sweep goes on without the cell, and says so
        assert "Traceback" not in stderr
        rows = load_rows(folder)
        assert len(rows) == len(calm["rows"])
        hit = [row for row in rows if row.reason == "the worker was ended by SIGKILL"]
        pairs = [row for row in rows if "SIGKILL" in row.unmeasured.get("turns", "")]
        assert len(hit) <= 1
        if hit:
            assert (hit[0].status, exit_status) == ("error", 1)
        elif pairs:
            assert (all(row.status == "ok" for row in pairs), exit_status) == (True, 1)
        else:  # its result was out already
            assert exit_status == calm_exit
    recorded = load_rows(folder) if lines_in(folder) else []
    attempts = {row.cell: len(row.attempts) for row in recorded}
    again = {row.cell for row in recorded if row.status != "ok"}
    with running(command(folder), f"{folder}-1") as run:
        assert run.ended()[0] == calm_exit
        assert run.survivors() == []
    assert content_of(folder) == calm
    for row in load_rows(folder):  # every attempt is kept, and only what was missing or not ok tried again
        earlier = attempts.get(row.cell, 0)
        assert len(row.attempts) == earlier + (earlier == 0 or row.cell in again)
    return Kill(kill.victim, kill.after_s, at_kill, exit_status, 1)


def kill_often(
    command: Callable[[Path], list[str]], folder: Path, count: int, seed: int = 0
) -> tuple[float, list[Kill]]:
    """Seconds of the undisturbed sweep, and at least ``count`` kills at instants spread evenly over it, until
    both sweep and worker were hit: a victim that had ended does not count."""
    started = time.monotonic()
    with running(command(folder / "calm"), f"{folder}-calm") as run:
        calm_exit = run.ended()[0]
        assert run.survivors() == []
    calm_s = time.monotonic() - started
    calm = content_of(folder / "calm")
    choice, kills = random.Random(seed), []
    while len(kills) < count or len({kill.victim for kill in kills}) < 2:
        kill = Kill(choice.choice(("sweep", "worker")), choice.uniform(0.0, calm_s), 0, 0, 0)
        name = f"{len(kills)}-{kill.after_s:.3f}"
        found = disturbed(command, folder / name, calm, calm_exit, kill)
        if found is not None:
            kills.append(found)
            print(found, flush=True)
    return calm_s, kills


@pytest.mark.slow
def test_a_few_kills_of_a_sweep_of_stand_ins(tmp_path):
    labels = ["ok 0.3", "fail", "ok 0.3"]
    _, kills = kill_often(lambda folder: stand_in_sweep(labels, folder), tmp_path, 2, seed=90)
    assert {kill.victim for kill in kills} == {"sweep", "worker"}


SMALL = """
[defaults]
images = 8
batch = 4
threads = 1
once = true
[[include]]
strategy = "lpd"
steps = 8
[[include]]
strategy = "par"
guidance = [false, 2.0]
network = "small-par"
checkpoint = "random"
tokenizer_checkpoint = "random"
images = 60
batch = 2
"""


@pytest.mark.slow
def test_many_kills_of_a_sweep_of_real_cells(small_presets, small_zoo, tmp_path, request):  # noqa: F811
    """Cells of both tiers; the published ones write shards of images and are timed in turn at the end."""
    file = tmp_path / "small.toml"
    file.write_text(SMALL)

    def command(folder: Path) -> list[str]:
        module = [sys.executable, "-m", "tests.harness.small_sweep"]
        return [*module, str(small_presets), str(file), str(folder), str(small_zoo)]

    count, seed = request.config.getoption("--kills"), request.config.getoption("--kill-seed")
    calm_s, kills = kill_often(command, tmp_path, count, seed)
    print(f"\n{len(kills)} kills of a sweep that takes {calm_s:.1f} s undisturbed")
    print(Counter((kill.victim, kill.rows_before) for kill in kills))
    if count >= 20:
        assert {kill.victim for kill in kills} == {"sweep", "worker"}
        assert {kill.rows_before for kill in kills} >= {0, 1, 2, 3}
