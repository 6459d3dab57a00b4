"""One listing of a folder's images: what is hashed is what is read, and what can't be reached is named."""

import hashlib
import os
from glob import glob
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.cell.cell import Cell
from harness.images import folders
from harness.images.data import load_dataset
from harness.images.folders import class_folders, clean_files, content_hash
from harness.subject.pins import pins
from pardec.errors import UserError


def draw(path: Path, shade: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), shade, dtype=np.uint8)).save(path, "PNG")
    return path


def two_classes(root: Path) -> Path:
    for name in ("ant", "bee"):
        for number in range(3):
            draw(root / name / f"{number}.png", 20 * number)
    return root


def data_hash(root: Path, zoo: Path) -> str:
    return pins(Cell("real", data=f"imagefolder:{root}", zoo=str(zoo)))["data"]


def test_a_picture_changed_behind_a_linked_class_changes_the_hash(small_zoo, tmp_path):
    root = two_classes(tmp_path / "set")
    (root / "bee").rename(tmp_path / "elsewhere")
    (root / "bee").symlink_to(tmp_path / "elsewhere")
    before, images = data_hash(root, small_zoo), load_dataset(f"imagefolder:{root}", "train")
    draw(tmp_path / "elsewhere" / "0.png", 250)
    draw(tmp_path / "elsewhere" / "1.png", 250)
    assert load_dataset(f"imagefolder:{root}", "train").sha256 != images.sha256
    assert data_hash(root, small_zoo) != before


def test_a_linked_picture_is_hashed_by_what_it_shows(small_zoo, tmp_path):
    root = two_classes(tmp_path / "set")
    (root / "ant" / "9.png").symlink_to(draw(tmp_path / "outside.png", 1))
    before = data_hash(root, small_zoo)
    draw(tmp_path / "outside.png", 2)
    assert data_hash(root, small_zoo) != before


@pytest.mark.parametrize(
    "extra", ["README.txt", "ant/notes.txt", "ant/.0.png", ".cache/0.png", "ant/deep/0.png"]
)
def test_what_is_not_read_is_not_hashed(small_zoo, tmp_path, extra):
    root = two_classes(tmp_path / "set")
    before, images = data_hash(root, small_zoo), load_dataset(f"imagefolder:{root}", "train")
    draw(root / extra, 9)
    assert load_dataset(f"imagefolder:{root}", "train").sha256 == images.sha256
    assert data_hash(root, small_zoo) == before


def test_the_hash_of_plain_folders_is_what_it_was(small_zoo, tmp_path):
    """Over name, zero byte and content hash of each file, in the order of their paths."""
    root = two_classes(tmp_path / "set")
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root)}\0{content}\n".encode())
    assert data_hash(root, small_zoo) == digest.hexdigest()


def test_suffixes_in_capitals_are_read_and_folders_that_look_like_pictures_are_not(tmp_path):
    draw(tmp_path / "ant" / "0.PNG")
    draw(tmp_path / "ant" / "1.JpEg")
    (tmp_path / "ant" / "folder.png").mkdir()
    os.mkfifo(tmp_path / "ant" / "pipe.png")
    assert class_folders(tmp_path) == [("ant", [tmp_path / "ant" / "0.PNG", tmp_path / "ant" / "1.JpEg"])]


@pytest.mark.parametrize("place", ["cat", "ant/7.png"])
def test_a_link_that_leads_nowhere_is_named(tmp_path, place):
    root = two_classes(tmp_path / "set")
    (root / place).symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=f"{place}' is a link that can't be followed: No such file"):
        class_folders(root)
    (root / place).unlink()
    (root / place).symlink_to(root / place)
    with pytest.raises(UserError, match="Too many"):
        class_folders(root)


def forbid(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """As for a user without permission; the tests may run as one who has all."""
    scan = os.scandir

    def scandir(path):
        if Path(path) == place:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(folders.os, "scandir", scandir)


def test_a_class_without_permission_is_named(tmp_path, monkeypatch):
    root = two_classes(tmp_path / "set")
    forbid(monkeypatch, root / "bee")
    with pytest.raises(UserError, match=r"bee' can't be read: Permission denied"):
        class_folders(root)


# clean-fid's -----------------------------------------------------------------------------------------------


def library_files(folder: Path) -> list[str]:
    """As clean-fid's get_folder_features lists them."""
    from cleanfid.utils import EXTENSIONS

    return sorted(file for ext in EXTENSIONS for file in glob(f"{folder}/**/*.{ext}", recursive=True))


def test_the_files_of_a_clean_reference_are_the_librarys(tmp_path):
    root = tmp_path / "real"
    names = ["0.png", "b/1.png", "b-c/2.png", "b/deep/3.webp", "4.JPEG", "5.JPG", "6.PNG", "7.npy", "8.jpeg"]
    left_out = ["9.gif", "10.Png", "11.TIF", ".12.png", ".hidden/13.png", "b/.x/14.png", "15.txt", "png"]
    for name in (*names, *left_out):
        draw(root / name)
    draw(tmp_path / "elsewhere" / "in" / "16.png")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(tmp_path / "elsewhere")
    (root / "17.png").symlink_to(root / "0.png")
    found = [str(path) for path in clean_files(root)]
    assert found == library_files(root)
    assert len(found) == len(names) + 3


def test_a_clean_reference_is_hashed_by_what_it_reads(tmp_path):
    root = two_classes(tmp_path / "real")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    draw(tmp_path / "elsewhere" / "0.png", 1)
    before = content_hash(root, clean_files(root))
    draw(root / ".hidden" / "0.png", 3)
    draw(root / "ant" / "0.gif", 3)
    assert content_hash(root, clean_files(root)) == before
    draw(tmp_path / "elsewhere" / "0.png", 2)
    assert content_hash(root, clean_files(root)) != before


def test_what_clean_fid_would_pass_over_in_silence_is_named(tmp_path, monkeypatch):
    root = two_classes(tmp_path / "real")
    (root / "ant" / "loop").symlink_to(root)
    with pytest.raises(UserError, match=r"ant/loop' is a link to a folder that it is in"):
        clean_files(root)
    (root / "ant" / "loop").unlink()
    (root / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"gone' is a link that can't be followed"):
        clean_files(root)
    (root / "gone").unlink()
    forbid(monkeypatch, root / "bee")
    with pytest.raises(UserError, match=r"bee' can't be read: Permission denied"):
        clean_files(root)


@pytest.mark.parametrize("count", [0, 1])
def test_a_clean_reference_needs_two_images(tmp_path, count):
    for number in range(count):
        draw(tmp_path / f"{number}.png")
    with pytest.raises(UserError, match=f"holds {count} images; a reference needs at least 2"):
        clean_files(tmp_path)


# Names that are not text -----------------------------------------------------------------------------------


def test_a_name_in_latin_1_is_read_and_hashed(small_zoo, tmp_path):
    root = two_classes(tmp_path / "set")
    name = os.fsdecode("caf\xe9.png".encode("latin-1"))
    draw(root / "ant" / name, 200)
    folder = os.fsdecode("caf\xe9".encode("latin-1"))
    for number in range(2):
        draw(root / folder / f"{number}.png", 7)
    assert folder in load_dataset(f"imagefolder:{root}", "train").classes
    before = data_hash(root, small_zoo)
    draw(root / "ant" / name, 201)
    assert data_hash(root, small_zoo) != before
    assert name in [path.name for path in clean_files(root)]
    content_hash(root, clean_files(root))
