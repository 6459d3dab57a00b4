"""Shards: the union of any cuts is the same run; kills, mistakes, exports, and processes that share a run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cleanfid.fid import get_folder_features
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.cell.cell import Cell
from harness.cli import main
from harness.images.pngs import check_png
from harness.images.shards import Shards, Share, flipped
from harness.quality.adm import read_adm
from harness.sweep.process import ROOT
from pardec.errors import UserError

CELL = "strategy=arpg,steps=4,batch=4"


def run(zoo, out, *flags: str, images: int = 20, seed: int = 0) -> None:
    text = f"{CELL},seed={seed}"
    arguments = ["generate", text, "--images", str(images), "--out", str(out), "--zoo", str(zoo)]
    assert main([*arguments, "--threads", "1", *flags]) == 0


@pytest.fixture(scope="module")
def whole(small_zoo, tmp_path_factory):
    """20 images in one process and one shard."""
    folder = tmp_path_factory.mktemp("whole")
    run(small_zoo, folder, "--chunk", "20")
    return Shards.read(folder)


def images_of(shards: Shards) -> np.ndarray:
    return np.concatenate(list(shards.parts("images")))


def test_shards_in_any_cut_give_the_same_images(small_zoo, tmp_path, whole):
    for part in ("2/3", "0/3", "1/3"):
        run(small_zoo, tmp_path, "--chunk", "4", "--shard", part)
    cut = Shards.read(tmp_path)
    assert len(cut.files()) == 5
    assert np.array_equal(images_of(cut), images_of(whole))
    assert flipped(cut, whole) == 0.0
    assert images_of(whole).shape == (20, 3, 32, 32)
    assert whole.tokens().shape == (20, 64)


def test_a_killed_run_goes_on_with_what_is_missing(small_zoo, tmp_path, whole):
    run(small_zoo, tmp_path, "--chunk", "8")
    first, second, third = [path for _, path in Shards.read(tmp_path).files()]
    kept = first.stat().st_mtime_ns
    second.unlink()
    (tmp_path / f".{third.name}.123").write_bytes(b"half a shard")
    run(small_zoo, tmp_path, "--chunk", "4")
    assert first.stat().st_mtime_ns == kept
    assert np.array_equal(images_of(Shards.read(tmp_path)), images_of(whole))


def test_overlapping_shards_count_each_image_once(small_zoo, tmp_path, whole):
    run(small_zoo, tmp_path, "--chunk", "8")
    Shards.read(tmp_path).files()[1][1].unlink()
    run(small_zoo, tmp_path, "--chunk", "12")
    shards = Shards.read(tmp_path)
    assert sum(len(images) for images, _ in shards.files()) > shards.total
    assert np.array_equal(images_of(shards), images_of(whole))


@pytest.mark.slow
def test_two_processes_of_torchrun_make_the_images_of_one(small_zoo, tmp_path, whole):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "harness.cli", "generate", f"{CELL},seed=0", "--images", "20", "--chunk", "4"]
    command += ["--out", str(tmp_path), "--zoo", str(small_zoo), "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("20 of 20 images") == 1
    assert np.array_equal(images_of(Shards.read(tmp_path)), images_of(whole))


def test_exports_hold_the_same_images(small_zoo, tmp_path, whole):
    adm, png = tmp_path / "samples.npz", tmp_path / "png"
    run(small_zoo, whole.folder, "--chunk", "20", "--adm", str(adm), "--png", str(png))
    read = read_adm(adm).images
    assert read is not None
    assert np.array_equal(read, images_of(whole))
    files = sorted(png.glob("*.png"))
    stored = np.stack([np.asarray(Image.open(path)) for path in files])
    assert np.array_equal(stored.transpose(0, 3, 1, 2), images_of(whole))
    features = get_folder_features(
        str(png),
        model=lambda pixels: pixels.flatten(1)[:, :8],
        num_workers=0,
        batch_size=8,
        device="cpu",
        mode="clean",
        custom_fn_resize=lambda image: image,
        verbose=False,
    )
    assert np.allclose(features, images_of(whole).reshape(20, -1)[:, :8], atol=1e-3)


def test_another_batch_is_another_run_and_its_flips_are_counted(small_zoo, tmp_path, whole, capsys):
    with pytest.raises(UserError, match="batch differ"):
        Shards.open(whole.folder, Cell(**{**_stored_cell(whole), "batch": 5}))
    arguments = ["generate", "strategy=arpg,steps=4,batch=5", "--images", "20", "--out", str(tmp_path)]
    arguments += ["--zoo", str(small_zoo), "--threads", "1", "--against", str(whole.folder)]
    assert main(arguments) == 0
    share = float(capsys.readouterr().out.strip().rpartition(" ")[2])
    assert share == flipped(Shards.read(tmp_path), whole)
    assert share < 0.01


def test_other_noise_is_seen(small_zoo, tmp_path, whole):
    run(small_zoo, tmp_path, seed=1)
    assert flipped(Shards.read(tmp_path), whole) > 0.2


def _stored_cell(shards: Shards) -> dict:
    return json.loads((shards.folder / "run.json").read_text())["cell"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--chunk", "6"], "multiple of the batch, 4"),
        (["--chunk", "0"], "multiple of the batch, 4"),
        (["--shard", "3/3"], "expected i/n"),
        (["--shard", "x"], "expected i/n"),
        (["--against", "nowhere"], "holds no images"),
        (["--images", "0"], "expected a whole number of at least 1"),
    ],
)
def test_mistakes_are_one_line(small_zoo, tmp_path, capsys, flags, words):
    arguments = ["generate", CELL, "--out", str(tmp_path / "out"), "--zoo", str(small_zoo), *flags]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_an_unfinished_run_cannot_be_read(tmp_path):
    shards = Shards(tmp_path, 8)
    shards.write(range(4, 8), np.zeros((4, 2)), None)
    with pytest.raises(UserError, match="image 0 of 8"):
        shards.tokens()
    shards.write(range(4), np.ones((4, 2)), None)
    assert shards.tokens().tolist() == [[1, 1]] * 4 + [[0, 0]] * 4
    with pytest.raises(UserError, match="no tokenizer"):
        next(shards.parts("images"))


@pytest.mark.parametrize("total", range(1, 14))
def test_a_run_that_ends_inside_a_shard_has_its_images_and_no_others(tmp_path, total):
    whole = Shards(tmp_path, 12)
    for images in (range(4), range(2, 6), range(4, 8), range(8, 12)):
        rows = np.array(images)[:, None]
        whole.write(images, rows, None, {"steps": rows[:, 0]})
    shards = Shards(tmp_path, total)
    if total > 12:
        with pytest.raises(UserError, match="no image 12 of 13"):
            list(shards.counters(()))
        return
    assert shards.tokens().ravel().tolist() == list(range(total))
    counted = [one["steps"] for one in shards.counters(("steps",))]
    assert np.concatenate(counted).tolist() == list(range(total))


def test_fewer_images_of_a_run_are_exported_alone(small_zoo, tmp_path):
    run(small_zoo, tmp_path / "run", "--chunk", "4", images=16)
    run(small_zoo, tmp_path / "run", "--png", str(tmp_path / "png"), images=6)
    assert sorted(pngs(tmp_path / "png")) == [f"{index:08d}.png" for index in range(6)]


def bytes_of(shards: Shards) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for _, path in shards.files()}


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def foreign(path: Path) -> None:
    np.savez(path, tokens=np.zeros((3, 64), np.int32), images=np.zeros((3, 3, 32, 32), np.uint8))


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(path.read_bytes()[:500]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: np.savez(path, images=np.zeros((8, 3, 32, 32), np.uint8)),
        flip_a_bit,
        foreign,
    ],
)
def test_a_shard_that_holds_something_else_is_made_again(small_zoo, tmp_path, whole, capsys, harm):
    run(small_zoo, tmp_path, "--chunk", "8")
    before = bytes_of(Shards.read(tmp_path))
    harm(tmp_path / "shard-00000008-00000016.npz")
    assert len(Shards.read(tmp_path).files()) == 2
    with pytest.raises(UserError, match=r"no image 8 of 20 \(shard-00000008-00000016.npz: \S"):
        Shards.read(tmp_path).tokens()
    capsys.readouterr()
    run(small_zoo, tmp_path, "--chunk", "4")  # another cut, so the torn one is not written over
    assert len(list(tmp_path.glob("shard-*"))) == 4
    assert "20 of 20 images" in capsys.readouterr().out
    assert np.array_equal(images_of(Shards.read(tmp_path)), images_of(whole))
    run(small_zoo, tmp_path, "--chunk", "8")
    run(small_zoo, tmp_path / "again", "--chunk", "8")
    assert before == bytes_of(Shards.read(tmp_path / "again"))


def test_more_images_extend_the_run_and_all_are_compared(small_zoo, tmp_path, whole, capsys):
    run(small_zoo, tmp_path, images=4)
    kept = next(tmp_path.glob("shard-*")).stat().st_mtime_ns
    run(small_zoo, tmp_path, images=12)
    assert next(tmp_path.glob("shard-00000000-00000004.npz")).stat().st_mtime_ns == kept
    assert np.array_equal(images_of(Shards.read(tmp_path)), images_of(whole)[:12])
    capsys.readouterr()
    run(small_zoo, whole.folder, "--chunk", "20", "--against", str(tmp_path))
    assert f"tokens of 12 images that differ from {tmp_path}: 0" in capsys.readouterr().out
    run(small_zoo, tmp_path, images=4)  # the first of them: the run stays as long as it is
    assert Shards.read(tmp_path).total == 12


def test_judges_and_lossiness_are_no_part_of_an_image(small_zoo, tmp_path):
    run(small_zoo, tmp_path, images=4)
    account = json.loads((tmp_path / "run.json").read_text())
    assert account["cell"]["lossiness_images"] == 4
    account["identity"] |= {"lossiness_images": 4}  # as earlier versions wrote it
    account["identity"]["pins"] |= {"judge": "0" * 64}
    (tmp_path / "run.json").write_text(json.dumps(account))
    run(small_zoo, tmp_path, images=8)
    assert Shards.read(tmp_path).total == 8


# Folders of PNG ---------------------------------------------------------------------------------------------


def pngs(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


def test_a_folder_of_png_holds_one_run(small_zoo, tmp_path, capsys):
    png = tmp_path / "png"
    run(small_zoo, tmp_path / "a", "--png", str(png), images=4)
    before = pngs(png)
    assert len(before) == 4
    arguments = ["generate", f"{CELL},seed=1", "--images", "4", "--out", str(tmp_path / "b")]
    arguments += ["--zoo", str(small_zoo), "--png", str(png), "--threads", "1"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert f"--png '{png}' holds '00000000.png', which is not of this run; expected an empty folder" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "b").exists()  # refused before anything is generated
    assert pngs(png) == before
    run(small_zoo, tmp_path / "a", "--png", str(png), images=8)
    after = pngs(png)
    assert len(after) == 8
    assert before.items() <= after.items()
    with pytest.raises(UserError, match="holds 8 images of this run, more than the 4 asked for"):
        check_png(png, Cell(**{**_stored_cell(Shards.read(tmp_path / "a")), "images": 4}))


@pytest.mark.parametrize("name", ["00000000.png", "notes.txt", "folder"])
def test_a_folder_with_anything_else_takes_no_png(small_zoo, tmp_path, capsys, name):
    (tmp_path / "png" / name).mkdir(parents=True)
    arguments = ["generate", CELL, "--images", "4", "--out", str(tmp_path / "out"), "--zoo", str(small_zoo)]
    assert main([*arguments, "--png", str(tmp_path / "png")]) == 2
    assert f"holds '{name}', which is not of this run; expected an empty folder" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main([*arguments, "--png", str(tmp_path / "file")]) == 2
    assert "can't be read: Not a directory" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_hidden_files_do_not_fill_a_folder(small_zoo, tmp_path):
    (tmp_path / "png").mkdir()
    (tmp_path / "png" / ".DS_Store").write_text("")
    run(small_zoo, tmp_path / "out", "--png", str(tmp_path / "png"), images=4)
    assert len(pngs(tmp_path / "png")) == 4


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 5))
def test_shares_deal_every_chunk_once(tmp_path_factory, total, length, count):
    shards = Shards(tmp_path_factory.mktemp("deal"), total)
    dealt = [shards.missing(length, Share(index, count)) for index in range(count)]
    images = sorted(image for chunks in dealt for chunk in chunks for image in chunk)
    assert images == list(range(total))
