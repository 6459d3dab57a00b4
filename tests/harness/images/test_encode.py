"""Encoding: crops as the papers cut them, shards whose union is the same however they were made, mistakes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.tokenizers import load_tokenizer
from harness.cli import main
from harness.images.code_shards import MANIFEST, CodeShards
from harness.images.codes_writer import CodesWriter
from harness.images.data import to_float
from harness.images.encode import Cropping, centre_square
from pardec.errors import UserError
from tests.harness.small_codes import INFO, codes_of, write_codes

SIZES = ((40, 32), (32, 32), (90, 130), (33, 70))  # width, height


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two classes of four pictures each, of several extents."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in ("dog", "cat"):
        (root / name).mkdir()
        for number, (width, height) in enumerate(SIZES):
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def encode(pictures, zoo, out, *flags: str) -> int:
    arguments = ["encode", "--data", f"imagefolder:{pictures}", "--tokenizer", "fsq", "--out", str(out)]
    return main([*arguments, "--checkpoint", str(zoo / "tokenizer.safetensors"), "--threads", "1", *flags])


def test_codes_are_those_of_the_crops_in_class_order(pictures, small_zoo, tmp_path):
    assert encode(pictures, small_zoo, tmp_path, "--chunk", "3", "--batch", "4") == 0
    codes, tokenizer = CodeShards.open(tmp_path), load_tokenizer(small_zoo / "tokenizer.safetensors")
    assert codes.info.classes == (("cat", 4), ("dog", 4))
    assert codes.labels.tolist() == [0] * 4 + [1] * 4
    assert [len(array) for array in codes.arrays] == [3, 3, 2]
    assert codes.arrays[0].dtype == np.uint8
    for image, file in enumerate(sorted(pictures.glob("cat/*")) + sorted(pictures.glob("dog/*"))):
        plain = torch.from_numpy(centre_square(Image.open(file).convert("RGB"), 32).copy())
        pair = to_float(torch.stack([plain, plain.flip(-1)]))
        found = codes.tokens(torch.tensor([image, image]), torch.tensor([0, 1]))
        assert torch.equal(found, tokenizer.encode(pair).flatten(1))


def test_shards_in_any_cut_and_after_a_kill_are_the_same(pictures, small_zoo, tmp_path, capsys):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert encode(pictures, small_zoo, whole, "--chunk", "2") == 0
    for part in ("1/3", "2/3"):
        assert encode(pictures, small_zoo, cut, "--chunk", "2", "--shard", part) == 0
    assert capsys.readouterr().out.endswith("4 of 8 images\n")
    with pytest.raises(UserError, match="unfinished"):
        CodeShards.open(cut)
    kept = sorted(cut.glob("*.npy"))
    before = [path.stat().st_mtime_ns for path in kept]
    (cut / f".{kept[0].name}.77").write_bytes(b"half a shard")
    assert encode(pictures, small_zoo, cut, "--chunk", "2") == 0
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert (cut / MANIFEST).read_bytes() == (whole / MANIFEST).read_bytes()


def test_pictures_are_halved_then_cut_from_their_middle():
    wide = np.zeros((64, 200, 3), dtype=np.uint8)
    wide[:, 68:132] = 255  # the middle 64 columns
    square = centre_square(Image.fromarray(wide), 16)
    assert square.shape == (3, 16, 16)
    assert (square[:, :, 1:-1] == 255).all()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    halved = np.asarray(image).reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    assert np.abs(centre_square(image, 16).transpose(1, 2, 0) - halved).max() <= 1  # two roundings


def test_ten_crops_are_centre_corners_and_their_mirrors():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (22, 22, 3), dtype=np.uint8))
    pixels = np.asarray(image).transpose(2, 0, 1)  # int(1.1 * 20) = 22: nothing is resized
    crops = Cropping(20, "ten")(image)
    assert crops.shape == (10, 3, 20, 20)
    corners = [(1, 1), (0, 0), (0, 2), (2, 0), (2, 2)]
    for crop, (top, left) in zip(crops, corners, strict=False):
        assert np.array_equal(crop, pixels[:, top : top + 20, left : left + 20])
    assert np.array_equal(crops[5:], crops[:5, ..., ::-1])
    assert Cropping(20, "ten", (1.1, 1.05))(image).shape == (20, 3, 20, 20)
    assert Cropping(20, "centre")(image).shape == (1, 3, 20, 20)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--tokenizer", "vq-lamagen"], "did you mean 'vq-llamagen'"),
        (["--tokenizer", "vq-llamagen"], "is missing"),
        (["--data", "imagefolder:nowhere"], "does not exist"),
        (["--data", "mnist"], "unknown data set"),
        (["--crops", "nine"], "unknown crops"),
        (["--crop-factors", "1.1"], "only crops 'ten'"),
        (["--crops", "ten", "--crop-factors", "a"], "expected numbers"),
        (["--image-size", "64"], "is for images of"),
        (["--tokenizer", "vq-llamagen", "--image-size", "100"], "multiple of 16"),
        (["--shard", "2/2"], "expected i/n"),
        (["--chunk", "0"], "expected at least 1"),
        (["--device", "tpu"], "expected cpu"),
    ],
)
def test_mistakes_are_one_line(pictures, small_zoo, tmp_path, capsys, flags, words):
    assert encode(pictures, small_zoo, tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_published_tokenizer_needs_its_file(pictures, tmp_path, capsys):
    arguments = ["encode", "--data", f"imagefolder:{pictures}", "--out", str(tmp_path)]
    assert main([*arguments, "--tokenizer", "vq-llamagen"]) == 2
    assert "needs --checkpoint FILE, the authors' vq_ds16_c2i.pt" in capsys.readouterr().err


def test_other_crops_do_not_mix_with_those_on_disk(pictures, small_zoo, tmp_path, capsys):
    assert encode(pictures, small_zoo, tmp_path) == 0
    capsys.readouterr()
    assert encode(pictures, small_zoo, tmp_path, "--crops", "ten") == 2
    assert "another run: crops, factors, variants differ" in capsys.readouterr().err


def test_a_broken_picture_is_named(pictures, small_zoo, tmp_path, capsys):
    root = tmp_path / "pictures"
    (root / "cat").mkdir(parents=True)
    (root / "cat" / "torn.png").write_bytes(next(pictures.glob("cat/*")).read_bytes()[:200])
    assert encode(root, small_zoo, tmp_path / "out") == 2
    assert "torn.png' can't be decoded" in capsys.readouterr().err


def test_codes_are_read_as_written(tmp_path):
    codes = CodeShards.open(write_codes(tmp_path))
    expected = codes_of()
    images, variants = torch.tensor([29, 0, 8, 8, 17]), torch.tensor([1, 0, 1, 0, 1])
    assert codes.tokens(images, variants).numpy().tolist() == expected[images, variants].tolist()
    assert codes.labels.tolist() == [0] * 9 + [1] * 10 + [2] * 11


def torn(folder):
    path = sorted(folder.glob("*.npy"))[1]
    path.write_bytes(path.read_bytes()[:-3])


def changed(folder):
    path = sorted(folder.glob("*.npy"))[1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def another_shape(folder):
    np.save(sorted(folder.glob("*.npy"))[1], np.zeros((8, 2, 15), dtype=np.uint8))


def rewritten(change):
    def write(folder):
        content = json.loads((folder / MANIFEST).read_text())
        change(content)
        (folder / MANIFEST).write_text(json.dumps(content))

    return write


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (torn, "are torn"),
        (changed, "changed since the manifest"),
        (another_shape, r"the manifest says uint8 \[8, 2, 16\]"),
        (lambda folder: sorted(folder.glob("*.npy"))[3].unlink(), "are missing"),
        (lambda folder: (folder / MANIFEST).unlink(), "unfinished"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "can't be read"),
        (lambda folder: (folder / MANIFEST).write_text("[]"), "can't be read"),
        (rewritten(lambda content: content.update(format=9)), "format 9; expected 1"),
        (rewritten(lambda content: content.pop("grid")), "can't be read"),
        (rewritten(lambda content: content["shards"].pop()), "other shards"),
        (
            rewritten(lambda content: content["shards"][0].update(file="../codes-00000000-00000008.npy")),
            "other shards",
        ),
    ],
)
def test_harmed_folders_are_refused(tmp_path, harm, words):
    harm(write_codes(tmp_path))
    with pytest.raises(UserError, match=words):
        CodeShards.open(tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        CodesWriter.open(tmp_path / "file" / "codes", INFO)


@pytest.mark.slow
def test_the_published_tokenizer_encodes_from_its_published_file(pictures, tmp_path):
    """LlamaGen's VQ at its full size with random weights, in the layout of the authors' file."""
    from backbones.tokenizers.published import load_published_tokenizer, random_tokenizer, tokenizer_by_family

    tokenizer, keys = random_tokenizer("vq-llamagen", (4, 4), seed=0), tokenizer_by_family("vq-llamagen").keys
    state = {}
    for name, value in tokenizer.state_dict().items():
        (source,) = keys.sources(name)
        state[source] = value
    torch.save({"model": state}, tmp_path / "vq.pt")
    arguments = ["encode", "--data", f"imagefolder:{pictures}", "--tokenizer", "vq-llamagen"]
    arguments += [
        "--checkpoint",
        str(tmp_path / "vq.pt"),
        "--image-size",
        "64",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(arguments) == 0
    codes = CodeShards.open(tmp_path / "out")
    assert (codes.info.codes, codes.info.grid, codes.arrays[0].dtype) == (16384, (4, 4), np.uint16)
    image = Image.open(sorted(pictures.glob("cat/*"))[2]).convert("RGB")
    plain = to_float(torch.from_numpy(centre_square(image, 64).copy())[None])
    expected = load_published_tokenizer("vq-llamagen", (4, 4), tmp_path / "vq.pt").encode(plain).flatten(1)
    found = codes.tokens(torch.tensor([2]), torch.tensor([0]))
    assert (found == expected).float().mean() > 0.9  # other batches round differently
