"""Depth, transparency and orientation of picture files, and what is refused of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from harness.images.data import load_dataset
from harness.images.pictures import BrokenPicture, open_image, open_plainly, read_image
from harness.quality import clean

DEEP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
EIGHT = np.round(DEEP / 257).astype(np.uint8)


def grey_of(path: Path) -> np.ndarray:
    pixels = np.asarray(open_image(path))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.pgm"])
def test_sixteen_bits_of_grey_are_scaled(tmp_path, name):
    Image.fromarray(DEEP).save(tmp_path / name)
    assert np.array_equal(grey_of(tmp_path / name), EIGHT)


def test_twelve_bits_are_scaled_by_their_own_white(tmp_path):
    """Pillow writes no such file, so the bits are packed here: two values in three bytes."""
    values = np.array([0, 4095, 1024, 2048], dtype=np.uint16)
    packed = b"".join(
        bytes((int(a) >> 4, (int(a) & 15) << 4 | int(b) >> 8, int(b) & 255)) for a, b in values.reshape(2, 2)
    )
    tags = [
        (256, 4),
        (257, 1),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 1),
        (279, len(packed)),
    ]
    entries = b"".join(
        tag.to_bytes(2, "little")
        + (4).to_bytes(2, "little")
        + (1).to_bytes(4, "little")
        + value.to_bytes(4, "little")
        for tag, value in tags
    )
    head = b"II*\0" + (8 + len(packed)).to_bytes(4, "little") + packed
    (tmp_path / "x.tif").write_bytes(head + len(tags).to_bytes(2, "little") + entries + bytes(4))
    assert grey_of(tmp_path / "x.tif").tolist() == [[0, 255, 64, 128]]


def test_floats_from_0_to_1_are_scaled_and_others_refused(tmp_path):
    Image.fromarray((EIGHT / 255).astype(np.float32)).save(tmp_path / "x.tif")
    assert np.array_equal(grey_of(tmp_path / "x.tif"), EIGHT)
    nan = np.full((4, 4), np.nan, dtype=np.float32)
    for values in (EIGHT.astype(np.float32), EIGHT.astype(np.float32) / -255, nan):
        Image.fromarray(values).save(tmp_path / "y.tif")
        with pytest.raises(BrokenPicture, match=r"y.tif' can't be decoded: floats from .* expected 0 to 1"):
            open_image(tmp_path / "y.tif")


def test_whole_numbers_of_unknown_range_are_refused(tmp_path):
    Image.fromarray(DEEP.astype(np.int32)).save(tmp_path / "x.tif")
    with pytest.raises(BrokenPicture, match="no known range"):
        open_image(tmp_path / "x.tif")


def clear_ink(mode: str) -> Image.Image:
    """Black ink, opaque in the left half and clear in the right."""
    ink = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    ink.paste((0, 0, 0, 255), (0, 0, 4, 8))
    return ink if mode == "RGBA" else ink.convert(mode)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("x.png", "RGBA"), ("x.png", "LA"), ("x.tif", "RGBA"), ("x.webp", "RGBA"), ("x.gif", "RGBA")],
)
def test_ink_on_nothing_is_ink_on_white(tmp_path, name, mode):
    clear_ink(mode).save(tmp_path / name, **({"lossless": True} if name == "x.webp" else {}))
    assert grey_of(tmp_path / name).tolist() == [[0] * 4 + [255] * 4] * 8


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "I;16"])
def test_a_colour_that_stands_for_nothing_is_white(tmp_path, mode):
    if mode == "I;16":
        image, clear = Image.fromarray(DEEP), 0
    elif mode == "P":
        image, clear = Image.fromarray(EIGHT).convert("P"), 0
    else:
        image = Image.fromarray(EIGHT).convert(mode)
        clear = 0 if mode == "L" else (0, 0, 0)
    image.save(tmp_path / "x.png", transparency=clear)
    found = grey_of(tmp_path / "x.png")
    assert (found[0, 0], found[0, 1] < 10) == (255, True)


def test_half_clear_is_half_white(tmp_path):
    Image.new("RGBA", (2, 2), (0, 0, 0, 128)).save(tmp_path / "x.png")
    assert np.abs(grey_of(tmp_path / "x.png").astype(int) - 127).max() <= 1


def test_opaque_pictures_are_what_they_were(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    for mode, name in (
        ("RGB", "a.png"),
        ("RGBA", "b.png"),
        ("CMYK", "c.tif"),
        ("L", "d.png"),
        ("1", "e.png"),
    ):
        image = Image.fromarray(pixels).convert(mode)
        image.save(tmp_path / name)
        assert np.array_equal(open_image(tmp_path / name), image.convert("RGB"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.tif", "deep.png"])
def test_pictures_are_turned_upright(tmp_path, orientation, name):
    exif = Image.Exif()
    exif[0x0112] = orientation
    shades = np.zeros((16, 24), dtype=np.uint8)
    shades[:8, :8], shades[8:, :8] = 255, 128
    image = Image.fromarray(shades.astype(np.uint16) * 257 if name == "deep.png" else shades)
    image.save(tmp_path / name, exif=exif)
    upright = Image.fromarray(shades)
    upright.getexif()[0x0112] = orientation
    assert (
        np.abs(grey_of(tmp_path / name).astype(int) - np.asarray(ImageOps.exif_transpose(upright))).max() <= 8
    )


def test_metadata_beyond_reading_turns_nothing(tmp_path):
    Image.new("RGB", (8, 4), "red").save(tmp_path / "x.jpg", exif=b"Exif\0\0no directory of tags")
    assert open_image(tmp_path / "x.jpg").size == (8, 4)


@pytest.mark.parametrize("name", ["x.gif", "x.png", "x.webp", "x.tif", "x.mpo"])
def test_of_several_frames_the_first_is_read(tmp_path, name):
    first, second = (Image.new("RGB", (8, 8), shade) for shade in ("red", "blue"))
    first.save(tmp_path / name, save_all=True, append_images=[second])
    red, _, blue = open_image(tmp_path / name).getpixel((4, 4))
    assert (red > 250, blue < 5) == (True, True)


def test_what_holds_no_picture_is_named(tmp_path):
    whole = tmp_path / "whole.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole)
    for content in (b"", b"not a picture", whole.read_bytes()[:300], whole.read_bytes()[:700]):
        (tmp_path / "x.jpg").write_bytes(content)
        with pytest.raises(BrokenPicture, match=r"x\.jpg' can't be decoded: \S") as caught:
            open_image(tmp_path / "x.jpg")
        assert "\n" not in str(caught.value)
    with pytest.raises(BrokenPicture, match="can't be decoded: Is a directory"):
        open_image(tmp_path)


def test_a_data_set_reads_pictures_so(tmp_path):
    (tmp_path / "ant").mkdir()
    for number in range(2):
        Image.fromarray(DEEP).save(tmp_path / "ant" / f"{number}.png")
    (image,) = load_dataset(f"imagefolder:{tmp_path}", "train").images
    assert torch.equal(image[0], torch.from_numpy(EIGHT))
    assert read_image(tmp_path / "ant" / "0.png", 4).shape == (3, 4, 4)


def test_a_clean_reference_keeps_the_librarys_reading(tmp_path):
    from cleanfid.utils import ResizeDataset

    Image.fromarray(DEEP).save(tmp_path / "deep.png")
    Image.fromarray((EIGHT / 255).astype(np.float32)).save(tmp_path / "floats.tif")
    clear_ink("RGBA").save(tmp_path / "ink.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(EIGHT).resize((20, 10)).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(EIGHT).convert("P").save(tmp_path / "palette.png", transparency=0)
    np.save(tmp_path / "array.npy", np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.float32))
    np.save(tmp_path / "bytes.npy", np.random.default_rng(1).integers(0, 256, (5, 6, 4), dtype=np.uint8))
    files = clean.clean_files(tmp_path)
    theirs = ResizeDataset(files, mode="clean")
    found = clean.resized(files, clean._read)
    assert len(files) == 7
    for ours, index in zip(found, range(7), strict=True):
        np.testing.assert_array_equal(ours, theirs[index].numpy())
    assert not np.array_equal(open_plainly(tmp_path / "ink.png"), open_image(tmp_path / "ink.png"))


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4)), np.full((4, 4, 3), np.nan), np.array([["a"]]), np.zeros((0, 4, 3))]
)
def test_arrays_that_are_no_pictures_are_refused(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(BrokenPicture, match=r"x\.npy' can't be decoded"):
        clean._read(tmp_path / "x.npy")
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:20])
    with pytest.raises(BrokenPicture, match=r"x\.npy' can't be decoded"):
        clean._read(tmp_path / "x.npy")
