"""Encoding that goes on: after a broken picture, a torn shard, other pictures; what is left out is listed."""

import json
import os
import resource
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.cli import main
from harness.images.code_shards import MANIFEST, CodeShards
from harness.images.encode import Cropping, centre_square
from pardec.errors import UserError

EACH = 6


@pytest.fixture
def pictures(tmp_path):
    """Two classes of six pictures."""
    root, rng = tmp_path / "pictures", np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(EACH):
            pixels = rng.integers(0, 256, (33, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.jpg")
    return root


@pytest.fixture
def encode(pictures, small_zoo, tmp_path):
    def run(*flags: str, out: Path = tmp_path / "out", data: Path = pictures) -> int:
        arguments = ["encode", "--data", f"imagefolder:{data}", "--tokenizer", "fsq", "--out", str(out)]
        arguments += [
            "--checkpoint",
            str(small_zoo / "tokenizer.safetensors"),
            "--chunk",
            "4",
            "--threads",
            "1",
        ]
        return main([*arguments, "--crops", "centre", *flags])

    return run


def tear(path: Path) -> bytes:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return whole


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npy")}


def same_codes(a: Path, b: Path) -> None:
    first, second = CodeShards.open(a), CodeShards.open(b)
    assert torch.equal(first.labels, second.labels)
    for ours, theirs in zip(first.arrays, second.arrays, strict=True):
        assert np.array_equal(ours, theirs)


# A broken picture -------------------------------------------------------------------------------------------


def test_a_repaired_picture_lets_encoding_go_on(pictures, encode, tmp_path, capsys):
    victim = pictures / "dog" / "1.jpg"
    whole = tear(victim)
    assert encode() == 2
    error = capsys.readouterr().err
    assert "dog/1.jpg' can't be decoded" in error
    assert "repair it, or leave such pictures out with --skip-broken" in error
    assert error.count("\n") == 1
    finished = times(tmp_path / "out")
    assert sorted(finished) == ["codes-00000000-00000004.npy"]
    victim.write_bytes(whole)
    assert encode() == 0
    assert finished.items() <= times(tmp_path / "out").items()  # kept as they were
    assert encode(out=tmp_path / "fresh") == 0
    same_codes(tmp_path / "out", tmp_path / "fresh")
    assert (tmp_path / "out" / MANIFEST).read_bytes() == (tmp_path / "fresh" / MANIFEST).read_bytes()


def test_a_picture_removed_for_being_broken_lets_it_go_on_too(pictures, encode, tmp_path):
    tear(pictures / "dog" / "1.jpg")
    assert encode() == 2
    finished = times(tmp_path / "out")
    (pictures / "dog" / "1.jpg").unlink()
    assert encode() == 0
    assert finished.items() <= times(tmp_path / "out").items()
    assert CodeShards.open(tmp_path / "out").labels.tolist() == [0] * 6 + [1] * 5


def test_broken_pictures_are_left_out_and_listed(pictures, encode, tmp_path, capsys):
    tear(pictures / "dog" / "1.jpg")
    (pictures / "cat" / "0.jpg").write_bytes(b"")
    assert encode("--skip-broken") == 0
    out = capsys.readouterr().out
    assert "left out: 'cat/0.jpg': the file is empty\n" in out
    assert "left out: 'dog/1.jpg': " in out
    assert "10 images in 1 crops, manifest written" in out
    codes = CodeShards.open(tmp_path / "out")
    assert (codes.images, codes.labels.tolist()) == (10, [0] * 5 + [1] * 5)
    assert [one.file for one in codes.skipped] == ["cat/0.jpg", "dog/1.jpg"]
    others = tmp_path / "others"
    shutil.copytree(pictures, others)
    (others / "dog" / "1.jpg").unlink()
    (others / "cat" / "0.jpg").unlink()
    assert encode(out=tmp_path / "without", data=others) == 0
    every, first = torch.arange(10), torch.zeros(10, dtype=torch.int64)
    assert torch.equal(codes.tokens(every, first), CodeShards.open(tmp_path / "without").tokens(every, first))


def test_what_was_left_out_is_made_once_it_is_whole(pictures, encode, tmp_path, capsys):
    victim = pictures / "dog" / "1.jpg"
    whole = tear(victim)
    assert encode("--skip-broken") == 0
    before = times(tmp_path / "out")
    capsys.readouterr()
    assert encode("--skip-broken") == 0  # nothing to do, and listed again
    assert times(tmp_path / "out") == before
    assert "left out: 'dog/1.jpg'" in capsys.readouterr().out
    assert encode() == 2  # without the flag it is no finished run
    assert "dog/1.jpg' can't be decoded" in capsys.readouterr().err
    # Broken anew at its old length: only the content tells.
    victim.write_bytes(whole)
    assert encode("--skip-broken") == 0
    assert "left out" not in capsys.readouterr().out
    after = times(tmp_path / "out")
    assert [name for name in before if after[name] != before[name]] == ["codes-00000004-00000008.npy"]
    assert encode(out=tmp_path / "fresh") == 0
    same_codes(tmp_path / "out", tmp_path / "fresh")
    assert not list((tmp_path / "out").glob("*.skipped.json"))


def test_a_chunk_without_any_whole_picture(pictures, encode, tmp_path, capsys):
    for number in range(4):
        (pictures / "cat" / f"{number}.jpg").write_bytes(b"no picture")
    assert encode("--skip-broken") == 0
    codes = CodeShards.open(tmp_path / "out")
    assert [len(array) for array in codes.arrays] == [0, 4, 4]
    assert codes.labels.tolist() == [0] * 2 + [1] * 6
    assert codes.tokens(torch.arange(8), torch.zeros(8, dtype=torch.int64)).shape == (8, 64)
    for path in pictures.glob("*/*.jpg"):
        path.write_bytes(b"")
    assert encode("--skip-broken", out=tmp_path / "none") == 2
    assert "no picture could be read, the first because the file is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "skipped", [[{"image": 3}], [{"image": "3", "file": "f", "sha256": "", "reason": ""}], "x", [3], {"a": 1}]
)
def test_a_manifest_with_a_damaged_list_is_refused(pictures, encode, tmp_path, skipped):
    assert encode() == 0
    path = tmp_path / "out" / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"skipped": skipped}))
    with pytest.raises(UserError, match=r"can't be read|other shards"):
        CodeShards.open(tmp_path / "out")


# Other pictures ---------------------------------------------------------------------------------------------


def test_finished_shards_of_changed_pictures_are_not_kept_in_silence(pictures, encode, tmp_path, capsys):
    assert encode() == 0
    Image.new("RGB", (50, 50)).save(pictures / "cat" / "5.jpg")
    assert encode() == 2
    error = capsys.readouterr().err
    assert "pictures that changed since: delete codes-00000004-00000008.npy to encode them again" in error
    assert error.count("\n") == 1
    (tmp_path / "out" / "codes-00000004-00000008.npy").unlink()
    assert encode() == 0
    assert encode(out=tmp_path / "fresh") == 0
    same_codes(tmp_path / "out", tmp_path / "fresh")


def test_another_folder_of_pictures_is_another_run(pictures, encode, tmp_path, capsys):
    assert encode() == 0
    other = tmp_path / "other"
    for path in pictures.glob("*/*.jpg"):
        (other / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64)).save(other / path.parent.name / path.name)
    before = times(tmp_path / "out")
    assert encode(data=other) == 2
    assert "delete codes-00000000-00000004.npy and 2 more" in capsys.readouterr().err
    assert times(tmp_path / "out") == before


# A torn shard -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 50, 500])
@pytest.mark.parametrize("finished", [True, False])
def test_a_torn_shard_is_made_again(pictures, encode, tmp_path, size, finished):
    assert encode(*([] if finished else ["--shard", "0/2"])) == 0
    victim = tmp_path / "out" / "codes-00000000-00000004.npy"
    whole = victim.read_bytes()
    victim.write_bytes(whole[: min(size, len(whole) - 1)])
    assert encode() == 0
    assert victim.read_bytes() == whole
    CodeShards.open(tmp_path / "out")


def test_a_shard_that_its_manifest_does_not_know_is_made_again(pictures, encode, tmp_path):
    assert encode() == 0
    victim = tmp_path / "out" / "codes-00000000-00000004.npy"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert encode() == 0
    assert victim.read_bytes() == whole


# Thin pictures ----------------------------------------------------------------------------------------------


def test_a_thin_picture_is_named_and_takes_no_memory(pictures, encode, tmp_path, capsys):
    Image.new("RGB", (100_000, 1)).save(pictures / "dog" / "thin.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert encode() == 2
    error = capsys.readouterr().err
    assert "dog/thin.png' can't be cropped: 100000x1 pixels are too thin for a square of 32" in error
    assert error.count("\n") == 1
    if sys.platform == "linux":
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    assert encode("--skip-broken") == 0
    assert "left out: 'dog/thin.png': 100000x1 pixels are too thin" in capsys.readouterr().out


@pytest.mark.parametrize("size", [(8000, 1), (1, 8000), (20_000, 2)])
def test_thin_pictures_are_bounded_at_the_published_size(size):
    for cropping in (Cropping(256), Cropping(256, "ten", (1.1, 4.0))):
        with pytest.raises(ValueError, match="too thin"):
            cropping(Image.new("RGB", size))


@pytest.mark.parametrize("size", [(2000, 20), (64, 1024), (300, 300), (1, 1), (4096, 256)])
def test_long_pictures_are_cut_as_ever(size):
    assert centre_square(Image.new("RGB", size, "red"), 256).shape == (3, 256, 256)


# Names ------------------------------------------------------------------------------------------------------


def test_names_in_latin_1_are_encoded_and_listed(pictures, encode, tmp_path, capfd):
    name = os.fsdecode("caf\xe9".encode("latin-1"))
    (pictures / "dog").rename(pictures / name)
    (pictures / name / "1.jpg").rename(pictures / name / f"{name}.jpg")
    assert encode() == 0
    assert name in dict(CodeShards.open(tmp_path / "out").info.classes)
    tear(pictures / name / f"{name}.jpg")
    assert encode("--skip-broken", out=tmp_path / "again") == 0
    assert CodeShards.open(tmp_path / "again").skipped[0].file == f"{name}/{name}.jpg"
    assert encode(out=tmp_path / "third") == 2
    assert capfd.readouterr().err.count("\n") == 1
