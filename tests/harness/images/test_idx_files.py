"""Fashion-MNIST: its files, the resizing rule, and what travels with the package."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from harness.cell.cell import Cell
from harness.images.data import augmentation_of, load_dataset
from harness.images.idx_files import CLASSES, FRACTION_BITS, SHIPPED, read_idx, resized, resizing_weights
from harness.subject.pins import pins
from pardec.errors import UserError


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, dtype=">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def write_split(folder: Path, stem: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(count)
    images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8)
    write_idx(folder / f"{stem}-images-idx3-ubyte.gz", images)
    write_idx(folder / f"{stem}-labels-idx1-ubyte.gz", labels)
    return images, labels


@pytest.fixture(scope="module")
def held_out():
    return load_dataset("fashion", "held-out")


def test_test_images_travel_with_the_package_and_are_frozen(held_out):
    assert held_out.images.shape == (10_000, 3, 32, 32)
    assert held_out.labels.bincount().tolist() == [1000] * 10
    assert held_out.classes == CLASSES
    assert torch.equal(held_out.images[:, 0], held_out.images[:, 2])
    assert held_out.sha256 == "3a958093bbfad015f1efc6ac1565f05660444f39ec5f342219a2ff592e6f86dd"
    assert "MIT License" in (SHIPPED / "LICENSE").read_text()


def test_a_folder_of_the_same_files_is_the_same_data_set(held_out):
    assert load_dataset(f"idx:{SHIPPED}", "held-out").sha256 == held_out.sha256


def test_files_of_a_folder_are_in_the_key_of_a_cell(small_zoo, tmp_path):
    for file in SHIPPED.glob("t10k*"):
        shutil.copy(file, tmp_path)
    cell = Cell("real", data=f"idx:{tmp_path}", zoo=str(small_zoo))
    before = pins(cell)["data"]
    assert "data" not in pins(Cell("real", zoo=str(small_zoo)))
    labels = tmp_path / "t10k-labels-idx1-ubyte.gz"
    raw = bytearray(gzip.decompress(labels.read_bytes()))
    raw[-1] ^= 1
    labels.write_bytes(gzip.compress(bytes(raw)))
    assert pins(cell)["data"] != before


def test_nothing_is_augmented_where_all_shoes_point_one_way():
    assert augmentation_of("fashion") is augmentation_of("idx:somewhere") is None
    assert augmentation_of("imagefolder:somewhere") is not None


@pytest.mark.parametrize(("extent", "side"), [(28, 32), (32, 32), (64, 32), (5, 7)])
def test_weights_are_whole_and_sum_to_one(extent, side):
    weights = resizing_weights(extent, side)
    assert weights.shape == (side, extent)
    assert (weights == weights.round()).all()
    assert (weights.sum(axis=1) == 1 << FRACTION_BITS).all()
    assert np.abs(weights[::-1, ::-1] - weights).max() <= 1


def test_resizing_is_bicubic_and_keeps_even_areas():
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    theirs = F.interpolate(
        torch.from_numpy(images)[:, None].double(), size=(32, 32), mode="bicubic", antialias=True
    )
    ours = resized(images, 32).astype(np.float64)
    assert np.abs(ours - theirs[:, 0].clamp(0, 255).numpy()).max() < 0.7
    even = np.full((2, 28, 28), 77, dtype=np.uint8)
    assert (resized(even, 32) == 77).all()
    assert (resized(images, 28) == images).all()


def test_splits_of_a_folder_are_its_own(tmp_path):
    images, labels = write_split(tmp_path, "train", 30)
    write_split(tmp_path, "t10k", 20)
    train = load_dataset(f"idx:{tmp_path}", "train")
    assert len(train) == 30
    assert train.labels.tolist() == labels.tolist()
    assert np.array_equal(train.images[:, 1].numpy(), resized(images, 32))
    assert len(load_dataset(f"idx:{tmp_path}", "held-out")) == 20
    assert len(train.first(5)) == 5


def test_unusable_files_are_named(tmp_path):
    with pytest.raises(UserError, match="has no file train-images-idx3-ubyte"):
        load_dataset(f"idx:{tmp_path}", "train")
    write_split(tmp_path, "train", 10)
    images, labels = (tmp_path / f"train-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
    write_idx(labels, np.arange(9) % 10)
    with pytest.raises(UserError, match="10 images and 9 labels"):
        load_dataset(f"idx:{tmp_path}", "train")
    write_idx(labels, np.arange(10) + 1)
    with pytest.raises(UserError, match="don't match"):
        load_dataset(f"idx:{tmp_path}", "train")
    whole = images.read_bytes()
    for broken in (
        whole[:200],
        b"",
        b"no gzip at all",
        gzip.compress(whole[:7]),
        gzip.compress(b"\0\0\x08\x03" + bytes(40)),
    ):
        images.write_bytes(broken)
        with pytest.raises(UserError, match="train-images"):
            load_dataset(f"idx:{tmp_path}", "train")
    with pytest.raises(UserError, match="not an idx file"):
        read_idx(labels, 3)
