"""Cells on a Ray cluster of two nodes, both on this machine: as a local run, and with a node killed."""

import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cell.cell import Cell
from harness.cell.sweep_file import Sweep
from harness.cli import main
from harness.sweep.cluster import ray_pool
from harness.sweep.cluster.ray_pool import RayPool
from harness.sweep.process import ROOT
from harness.sweep.sweep import run_sweep
from pardec.errors import UserError
from results.store import load_rows

STAND_IN = (sys.executable, str(Path(__file__).parents[1] / "stand_in_worker.py"))


def test_without_ray_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["sweep", "quick", "--executor", "ray", "--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "pardec: --executor ray needs Ray: pip install 'pardec[ray]'\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--address", "10.0.0.1:6379"], "--address '10.0.0.1:6379': only with --executor ray"),
        (["--executor", "rya"], "invalid choice: 'rya'"),
    ],
)
def test_flags_that_do_not_go_together(tmp_path, capsys, arguments, words):
    assert main(["sweep", "quick", "--results", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nowhere", "expected HOST:PORT"),
        ("ray://127.0.0.1:10001", "expected HOST:PORT"),
        ("127.0.0.1:1", "no Ray cluster answers there"),
        ("127.0.0.1:99999", "no Ray cluster answers there"),
    ],
)
def test_a_wrong_address_is_one_line(tmp_path, capsys, address, words):
    pytest.importorskip("ray")
    command = ["sweep", "quick", "--executor", "ray", "--results", str(tmp_path), "--address", address]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert f"--address '{address}'" in error
    assert words in error
    assert error.count("\n") == 1


class Cluster:
    """A head without resources, and nodes of one CPU each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as RayCluster

        self.cluster = RayCluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, **SMALL},
        )
        self.address = self.cluster.address
        self.nodes = [self.add() for _ in range(2)]

    def add(self):
        return self.cluster.add_node(num_cpus=1, **SMALL)

    def kill(self, node_id: str) -> None:
        (node,) = [node for node in self.nodes if node.node_id == node_id]
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        self.cluster.shutdown()


SMALL = {"object_store_memory": 100 * 1024 * 1024}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        made = Cluster()
    yield made
    made.close()


def cell(label: str = "ok", seed: int = 0, **more) -> Cell:
    return Cell("lpd", label=label, seed=seed, threads=1, timeout_s=60.0, **more)


def plain(rows) -> list:
    """All but times; the stand-in worker doesn't import torch, so its version may lack the build."""
    kept = []
    for row in rows:
        torch = row.environment["torch"].partition("+")[0]
        untimed = {"started_at": "", "wall_s": None, "attempts": [], "environment": None}
        kept.append((dataclasses.replace(row, **untimed, unmeasured=row.unmeasured | {"wall_s": "cut"}),))
        kept[-1] += (row.environment | {"torch": torch}, [one["status"] for one in row.attempts])
    return kept


@pytest.mark.slow
def test_a_ray_run_equals_the_local_one(cluster, tmp_path):
    cells = (cell(), cell("fail", 1), cell("crash", 2), cell("ok 0.5", 3), cell("ok 0.5", 4))
    sweep = Sweep("test", "test", cells)
    local = run_sweep(sweep, tmp_path / "local", STAND_IN).rows
    (tmp_path / "ray").mkdir()
    with RayPool(cluster.address, tmp_path / "ray", STAND_IN) as pool:
        pool.check(cells)
        assert len(pool._nodes) == 3
        summary = run_sweep(sweep, tmp_path / "ray", pool=pool)
    assert plain(summary.rows) == plain(local)
    assert plain(sorted(load_rows(tmp_path / "ray"), key=lambda row: row.seed)) == plain(local)


@pytest.mark.slow
def test_a_dry_run_shows_the_nodes(cluster):
    nodes = ray_pool.nodes_at(cluster.address)
    assert sorted((node.cpus, node.gpus) for node in nodes) == [(0, 0), (1, 0), (1, 0)]


def test_cells_that_no_node_can_run_are_told_before_anything_runs(cluster, tmp_path):
    with RayPool(cluster.address, tmp_path) as pool:
        for wrong, words in (
            (cell(device="cuda"), "needs a GPU, and no node has one"),
            (Cell("lpd", threads=8), "needs 8 CPUs, and the largest node has 1: choose --threads"),
            (cell(device="cuda:1"), "Ray deals the GPUs, say cuda"),
        ):
            with pytest.raises(UserError, match=words):
                pool.check([cell(), wrong])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_node_with_another_pardec_is_named(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_pool, "version", lambda package: "99.0")
    with (
        RayPool(cluster.address, tmp_path) as pool,
        pytest.raises(UserError, match=r"has pardec .*, this machine 99\.0: install one version"),
    ):
        pool.check([cell()])


@pytest.mark.slow
def test_a_real_cell_gives_the_tokens_quality_and_pictures_of_a_local_one(cluster, small_zoo, tmp_path):
    file = tmp_path / "tiny.toml"
    file.write_text(
        '[sweep]\nname = "tiny"\nin_turn = "none"\n[defaults]\nimages = 10\nbatch = 5\nthreads = 1\n'
        'lossiness_images = 2\n[grid]\nstrategy = ["lpd", "arpg"]\nsteps = 8\n'
    )
    command = ["sweep", str(file), "--zoo", str(small_zoo), "--no-report", "--max-images", "10"]
    local, there = tmp_path / "local", tmp_path / "ray"
    assert main([*command, "--results", str(local)]) == 0
    ray = ["--executor", "ray", "--address", cluster.address]
    assert main([*command, "--results", str(there), *ray]) == 0
    rows, others = ({row.cell: row for row in load_rows(folder)} for folder in (local, there))
    assert rows.keys() == others.keys()
    for key, row in rows.items():
        other = others[key]
        assert other.tokens_sha256 == row.tokens_sha256
        assert (other.quality, other.lossiness_bits, other.steps) == (
            row.quality,
            row.lossiness_bits,
            row.steps,
        )
        assert (other.environment, other.artifacts) == (row.environment, row.artifacts)
        for name in row.artifacts.values():
            assert (there / name).read_bytes() == (local / name).read_bytes()


@pytest.mark.slow
def test_a_node_killed_in_the_middle_costs_its_cell_one_retry_and_no_row(cluster, tmp_path):
    cells = tuple(cell("ok 6" if seed < 2 else "ok", seed) for seed in range(4))
    killed = []

    def kill_one(pool: RayPool) -> None:
        """When both nodes are at work, one of them goes."""
        end = time.monotonic() + 60
        while time.monotonic() < end and len(pool._sent) < 2:
            time.sleep(0.05)
        time.sleep(3.0)  # both workers are in the middle of their cells
        _, node, _ = next(iter(pool._sent.values()))
        cluster.kill(node.id)
        killed.append(node.id)

    with RayPool(cluster.address, tmp_path, STAND_IN) as pool:
        killer = threading.Thread(target=kill_one, args=(pool,))
        killer.start()
        summary = run_sweep(Sweep("test", "test", cells, in_turn="none"), tmp_path, pool=pool)
        killer.join()
    assert len(killed) == 1
    assert [row.status for row in summary.rows] == ["ok"] * 4
    rows = load_rows(tmp_path)
    assert {row.cell for row in rows} == {one.key for one in cells}
    assert len(rows) == 4
    tried_again = [row for row in rows if len(row.attempts) > 1]
    assert len(tried_again) == 1
    lost, again = tried_again[0].attempts
    assert (lost["status"], again["status"]) == ("error", "ok")
    assert "was lost" in lost["reason"]
    cluster.nodes.append(cluster.add())


INTERRUPTED = """
import sys
from pathlib import Path
from harness.sweep.cluster.ray_pool import RayPool
from harness.sweep.sweep import run_sweep
from harness.cell.sweep_file import Sweep
from harness.cell.cell import Cell
cells = tuple(Cell("lpd", label="ok 2", seed=seed, threads=1) for seed in range(8))
folder = Path(sys.argv[2])
with RayPool(sys.argv[1], folder, sys.argv[3:]) as pool:
    summary = run_sweep(Sweep("test", "test", cells), folder, pool=pool)
print(summary)
sys.exit(summary.exit_code)
"""


@pytest.mark.slow
def test_interrupting_ends_after_the_cells_that_run(cluster, tmp_path):
    driver = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, cluster.address, str(tmp_path), *STAND_IN],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    rows = tmp_path / "rows.jsonl"
    end = time.monotonic() + 60
    while time.monotonic() < end and not (rows.exists() and rows.read_bytes().count(b"\n")):
        time.sleep(0.05)
    driver.send_signal(2)
    text, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "interrupted: " in text
    assert 1 <= len(load_rows(tmp_path)) < 8
    assert {row.status for row in load_rows(tmp_path)} == {"ok"}
