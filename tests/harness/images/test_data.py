"""A user's folder, the split, the augmentation and the colour rule."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.images.data import Augmentation, epochs, load_dataset, to_float, to_uint8
from pardec.errors import UserError


def write_folder(root: Path, sizes: dict[str, list[tuple[int, int]]]) -> Path:
    generator = np.random.default_rng(0)
    for name, extents in sizes.items():
        (root / name).mkdir(parents=True)
        for number, (width, height) in enumerate(extents):
            pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def few():
    return to_float(load_dataset("fashion", "held-out").images[:8])


def test_the_data_set_before_is_refused_by_what_replaced_it():
    with pytest.raises(UserError, match='replaced by data = "fashion"') as caught:
        load_dataset("mnist", "train")
    assert "\n" not in str(caught.value)


def test_colour_rule_rounds_and_clamps():
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(every)), every)
    assert to_uint8(torch.tensor([-3.0, -1.0, 0.0, 1.0, 2.0])).tolist() == [0, 0, 128, 255, 255]


def test_augmentation_is_a_function_of_its_generator(few):
    images = few
    first = Augmentation()(images, torch.Generator().manual_seed(3))
    again = Augmentation()(images, torch.Generator().manual_seed(3))
    other = Augmentation()(images, torch.Generator().manual_seed(4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == images.shape
    assert first.abs().max() <= 1


def test_augmentation_of_nothing_changes_nothing(few):
    images = few[:4]
    same = Augmentation(degrees=0, shift=0, scale=0)(images, torch.Generator().manual_seed(0))
    torch.testing.assert_close(same, images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("extent", [(21, 21), (21, 41)])
def test_augmentation_stays_within_its_bounds(extent):
    height, width = extent
    dot = torch.zeros(64, 1, height, width)
    dot[:, :, height // 2, width // 2 + 6] = 1
    moved = Augmentation(degrees=10, shift=2, scale=0)(dot, torch.Generator().manual_seed(0))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    mass = moved.sum((1, 2, 3))
    across = (moved[:, 0] * columns).sum((1, 2)) / mass - width // 2
    down = (moved[:, 0] * rows).sum((1, 2)) / mass - height // 2
    reach = 6 * np.sin(np.radians(10)) + 2 + 0.5
    assert down.abs().max() <= reach
    assert (across - 6).abs().max() <= 2.6
    assert down.abs().max() > 1.5


def test_epochs_visit_every_row_once_per_pass():
    rows = epochs(10, 3, torch.Generator().manual_seed(0))
    for _ in range(2):
        seen = torch.cat([next(rows) for _ in range(3)])
        assert len(seen.unique()) == 9
    with pytest.raises(UserError, match="larger than the training split"):
        next(epochs(2, 3, torch.Generator()))


def test_folder_classes_split_and_hash(tmp_path):
    root = write_folder(tmp_path / "set", {"cat": [(8, 8)] * 10, "ant": [(8, 8)] * 5})
    train, held_out = (load_dataset(f"imagefolder:{root}", split) for split in ("train", "held-out"))
    assert train.classes == ("ant", "cat")
    assert train.labels.bincount().tolist() == [4, 8]
    assert held_out.labels.bincount().tolist() == [1, 2]
    assert train.images.shape == (12, 3, 8, 8)
    assert train.sha256 == load_dataset(f"imagefolder:{root}", "train").sha256 != held_out.sha256


def test_folder_crops_the_centre_when_a_size_is_asked_for(tmp_path):
    root = write_folder(tmp_path / "set", {"a": [(8, 8), (16, 8), (5, 9)]})
    assert load_dataset(f"imagefolder:{root}?size=8", "train").images.shape == (2, 3, 8, 8)
    striped = np.zeros((4, 12, 3), dtype=np.uint8)
    striped[:, 4:8] = 200
    for number in range(2):
        Image.fromarray(striped).save(root / "a" / f"striped{number}.png")
    for name in ("0.png", "1.png", "2.png"):
        (root / "a" / name).unlink()
    assert load_dataset(f"imagefolder:{root}?size=4", "train").images.unique().tolist() == [200]


def test_folder_mistakes_are_one_line_that_names_the_place(tmp_path):
    empty, lonely, mixed, broken = (tmp_path / name for name in ("empty", "lonely", "mixed", "broken"))
    empty.mkdir()
    write_folder(lonely, {"a": [(8, 8)]})
    write_folder(mixed, {"a": [(8, 8), (8, 8)], "b": [(8, 8), (9, 8)]})
    write_folder(broken, {"a": [(8, 8), (8, 8)]})
    whole = (broken / "a" / "1.png").read_bytes()
    cases = [
        (f"imagefolder:{tmp_path / 'absent'}", "does not exist"),
        (f"imagefolder:{empty}", "no class folders"),
        (f"imagefolder:{lonely}", "has 1 image; each class needs at least 2"),
        (f"imagefolder:{mixed}", r"1.png' is 9x8 but .* 8x8; add \?size=32"),
        ("imagefolder:", "names no folder"),
        (f"imagefolder:{mixed}?sice=8", "did you mean 'size'"),
        (f"imagefolder:{mixed}?size=0", "not a positive whole number"),
        ("fashoin", "did you mean 'fashion'"),
    ]
    for content in (b"not an image", b"", whole[: len(whole) // 2]):
        (broken / "a" / "1.png").write_bytes(content)
        with pytest.raises(UserError, match=r"1.png' can't be decoded") as caught:
            load_dataset(f"imagefolder:{broken}", "train")
        assert "\n" not in str(caught.value)
    for spec, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            load_dataset(spec, "train")
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="unknown split 'test'"):
        load_dataset("fashion", "test")
