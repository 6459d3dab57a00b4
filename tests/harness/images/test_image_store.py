"""Images of published cells on disk while they are made: kills half-way, the same union, honest times."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.cell.cell import Cell, unscored
from harness.images.shards import Shards, identity
from harness.images.stores import ImageStore
from harness.subject.pins import finished
from harness.subject.race import RACED
from harness.sweep.process import ROOT
from pardec.errors import UserError
from results.store import load_rows
from tests.harness.small_published import cell, row_of, small_presets  # noqa: F401

IMAGES = 46  # 5 chunks of 10 batches of one image, the last one short


class Killed(Exception):
    pass


def folder_of(results: Path) -> Path:
    (folder,) = (results / "images").iterdir()
    return folder


def contents(results: Path) -> dict[str, tuple[bytes, bytes]]:
    """Tokens and images of every shard by name."""
    found = {}
    for _, path in Shards.read(folder_of(results)).files():
        with np.load(path, allow_pickle=False) as file:
            found[path.name] = file["tokens"].tobytes(), file["images"].tobytes()
    return found


def _warm(row) -> int:
    """Batches of images that were warm-up; one before them measured the memory."""
    return len(row.warmup_s) - 1


@pytest.mark.parametrize(
    "survivors", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(3, marks=pytest.mark.slow), 5]
)
def test_a_cell_killed_after_some_chunks_goes_on_with_the_next(survivors, tmp_path, monkeypatch):
    chosen = cell(images=IMAGES, batch=1, by_batch=False)
    calm = row_of(chosen, tmp_path / "calm", monkeypatch)
    written: list[range] = []
    write = Shards.write

    def write_or_die(self: Shards, images: range, *arrays) -> None:
        if len(written) == survivors:
            raise Killed
        write(self, images, *arrays)
        written.append(images)

    with monkeypatch.context() as patch:
        patch.setattr(Shards, "write", write_or_die)
        if survivors < 5:
            with pytest.raises(Killed):
                row_of(chosen, tmp_path / "cut", monkeypatch)
        else:  # killed while it was judged
            patch.setattr("harness.sweep.job._generated_quality", lambda *_: (_ for _ in ()).throw(Killed))
            with pytest.raises(Killed):
                row_of(chosen, tmp_path / "cut", monkeypatch)
    kept = {
        path.name: path.stat().st_mtime_ns for _, path in Shards.read(folder_of(tmp_path / "cut")).files()
    }
    assert len(kept) == survivors

    resumed = row_of(chosen, tmp_path / "cut", monkeypatch)
    assert resumed.cell == calm.cell
    assert resumed.tokens_sha256 == calm.tokens_sha256
    assert contents(tmp_path / "cut") == contents(tmp_path / "calm")
    for name, changed in kept.items():
        assert (folder_of(tmp_path / "cut") / name).stat().st_mtime_ns == changed
    # The batches of this try alone: what was missing, and the raced images' for orders and film.
    made = IMAGES - min(10 * survivors, IMAGES) + (RACED if survivors else 0)
    assert resumed.throughput_repeats == len(resumed.throughput_samples) == made - _warm(resumed)
    assert calm.throughput_repeats == IMAGES - _warm(calm)
    for name in ("samples", "film", "step_of_position", "steps_of_images", "lost_draws"):
        with (
            np.load(tmp_path / "cut" / resumed.artifacts["samples"]) as ours,
            np.load(tmp_path / "calm" / calm.artifacts["samples"]) as theirs,
        ):
            assert np.array_equal(ours[name], theirs[name])


def test_images_are_found_again_whatever_they_are_judged_by_and_wherever_files_lie():
    """The folder's name and the identity in it leave out paths, reference and weights."""
    one = cell(checkpoint="/a/x.pt", reference="/a/r.npz", inception="/a/i.pth")
    pins = {"network": "1", "reference": "2", "inception": "3"}
    made = [
        Cell(**{**vars(one), "pins": pins}),
        Cell(**{**vars(one), "pins": pins | {"reference": "9"}, "checkpoint": "/b/x.pt", "inception": "/b"}),
    ]
    assert made[0].key != made[1].key
    assert unscored(made[0]).key == unscored(made[1]).key
    assert identity(made[0]) == identity(made[1])
    other = Cell(**{**vars(one), "pins": pins | {"network": "8"}})
    assert unscored(other).key != unscored(made[0]).key
    assert identity(other) != identity(made[0])


def test_a_store_takes_batches_in_order_and_ignores_what_is_there(tmp_path):
    chosen = finished(cell(images=7))
    shards = Shards.open(tmp_path / "run", chosen)
    store = ImageStore.of(shards, chosen, chunk=4)
    batches = list(store.batches())
    assert batches == [range(2), range(2, 4), range(4, 6), range(6, 7)]
    for images in batches[:2]:
        tokens = torch.tensor(images).unsqueeze(1)
        store.add(images, tokens, None)
    assert [images for images, _ in shards.files()] == [range(4)]
    again = ImageStore.of(shards, chosen, chunk=4)
    assert (again.images_missing, list(again.batches())) == (3, batches[2:])
    again.add(range(2), torch.tensor([[8], [9]]), None)
    again.add(range(4, 6), torch.tensor([[4], [5]]), None)
    assert len(shards.files()) == 1
    again.add(range(6, 7), torch.tensor([[6]]), None)
    assert shards.tokens().ravel().tolist() == list(range(7))


def test_without_a_tokenizer_tokens_alone_are_stored(tmp_path, monkeypatch):
    row = row_of(cell(tokenizer_checkpoint=None), tmp_path, monkeypatch)
    shards = Shards.read(folder_of(tmp_path))
    assert shards.tokens().shape == (3, 16)
    with pytest.raises(UserError, match="no tokenizer"):
        next(shards.parts("images"))
    assert row.tokens_sha256 is not None


FILE = """
[[include]]
strategy = "par"
network = "small-par"
checkpoint = "random"
tokenizer_checkpoint = "random"
images = 300
batch = 1
threads = 1
once = true
"""


def start(catalogue: Path, file: Path, results: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.harness.small_sweep", str(catalogue), str(file), str(results)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)


@pytest.mark.slow
def test_a_sweep_killed_in_the_middle_of_a_range_ends_with_the_shards_of_an_undisturbed_one(
    small_presets,  # noqa: F811
    tmp_path,
):
    file = tmp_path / "small.toml"
    file.write_text(FILE)
    assert start(small_presets, file, tmp_path / "calm").wait() == 0
    sweep = start(small_presets, file, tmp_path / "cut")
    end = time.monotonic() + 60
    while len(list((tmp_path / "cut").glob("images/*/shard-*.npz"))) < 3 and time.monotonic() < end:
        time.sleep(0.005)
    os.kill(sweep.pid, signal.SIGKILL)
    sweep.wait()
    time.sleep(1)  # its worker ends with it
    survivors = len(list((tmp_path / "cut").glob("images/*/shard-*.npz")))
    assert 3 <= survivors < 30
    assert (tmp_path / "cut" / "rows.jsonl").read_bytes() == b""
    assert start(small_presets, file, tmp_path / "cut").wait() == 0
    (calm,), (cut,) = load_rows(tmp_path / "calm"), load_rows(tmp_path / "cut")
    assert (cut.cell, cut.tokens_sha256) == (calm.cell, calm.tokens_sha256)
    assert contents(tmp_path / "cut") == contents(tmp_path / "calm")
    assert cut.throughput_repeats == 300 - 10 * survivors + RACED
