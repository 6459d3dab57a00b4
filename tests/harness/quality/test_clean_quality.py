"""clean-fid's own protocol: the numbers of the library, its files, and what is left out without them."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from cleanfid.fid import compute_fid, get_folder_features
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import make_resizer
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from harness import quality as q
from harness.cell.cell import Cell, unscored
from harness.cli import main
from harness.quality import clean, frechet
from harness.quality.assess import adm as assess_published
from harness.quality.assess import clean as assess_clean
from harness.quality.assess.clean import CleanAssessor
from harness.quality.score import clean_distance
from harness.subject.pins import finished
from pardec.errors import UserError
from pardec.hashing import file_sha256
from reports.claims import claims
from reports.comparability import CLEAN_KEYS, Incomparable, quantity, require_comparable
from reports.frame import facets
from results.store import ResultStore, load_rows
from tests.harness.quality_standins import pictures
from tests.harness.small_published import cell, row_of, small_presets  # noqa: F401
from tests.reports.synthetic_rows import base_row

NARROW = 12


class Layers(nn.Module):
    """Random features of pixels in [-1, 1]: float [B, 3, 299, 299] -> [B, 2048]."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.mix = nn.Parameter(torch.randn(147, 2048, generator=generator) / 12)

    def forward(self, images: Tensor) -> Tensor:
        coarse = nn.functional.adaptive_avg_pool2d(images, 7).flatten(1)  # [B, 147]
        return torch.relu(coarse @ self.mix)


class Published(nn.Module):
    """The interface of ``inception-2015-12-05.pt``: a module with ``layers``."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers()

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images / 128 - 1)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clean") / "inception-2015-12-05.pt"
    torch.jit.script(Published().eval()).save(str(path))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("images") / "real", pictures(20, 5))


def write(folder: Path, images: NDArray[np.uint8]) -> Path:
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number:03d}.png")
    return folder


def statistics_file(path: Path, **changes: NDArray[np.float64]) -> Path:
    np.savez(path, **{"mu": np.zeros(2048), "sigma": np.eye(2048), **changes})
    return path


# The library's numbers -------------------------------------------------------------------------------------


def test_resize_is_antialiased_bicubic_of_float_channels():
    images = [pictures(1, 1)[0].transpose(1, 2, 0), pictures(1, 2)[0].transpose(1, 2, 0)[:20, :28]]
    large = np.random.default_rng(0).integers(0, 256, (400, 310, 3), dtype=np.uint8)
    found = clean.resized([*images, large])
    assert (found.dtype, found.shape) == (np.float32, (3, 3, 299, 299))
    theirs = make_resizer("PIL", False, "bicubic", (299, 299))
    for ours, image in zip(found, [*images, large], strict=True):
        np.testing.assert_array_equal(ours, theirs(image).transpose(2, 0, 1))
        channel = Image.fromarray(image[:, :, 1].astype(np.float32))
        bicubic = np.asarray(channel.resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255)
        np.testing.assert_array_equal(ours[1], bicubic)
    assert (found != found.round()).any()  # not rounded to bytes


def test_features_are_those_of_the_library(network, folder):
    extractor = clean.clean_extractor(network)
    assert (extractor.name, extractor.sha256) == ("inception-clean", file_sha256(network))
    library = InceptionV3W(str(network.parent), download=False)
    theirs = get_folder_features(
        str(folder), library, num_workers=0, batch_size=8, device=torch.device("cpu"), verbose=False
    )
    ours = q.extract(pictures(20, 5), extractor, batch=8)
    np.testing.assert_allclose(ours.features, theirs, rtol=1e-6, atol=1e-6)
    stats = clean.folder_statistics(folder, "0" * 64, extractor, 8, "cpu")
    assert (stats.name, stats.n) == ("real", 20)
    np.testing.assert_allclose(stats.mu, theirs.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(stats.sigma, np.cov(theirs, rowvar=False), rtol=1e-4, atol=1e-7)


def test_distance_is_that_of_the_library_between_two_folders(network, folder, tmp_path):
    """Of the network's first features, fewer than images, so that the library's root is regular."""
    library = InceptionV3W(str(network.parent), download=False)
    images = pictures(24, 9, 20)
    theirs = compute_fid(
        str(write(tmp_path / "fake", images)),
        str(folder),
        custom_feat_extractor=lambda batch: library(batch)[:, :NARROW],
        num_workers=0,
        device=torch.device("cpu"),
        verbose=False,
    )
    extractor = clean.clean_extractor(network)

    class Narrow(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            return library(batch)[:, :NARROW]

    narrow = dataclasses.replace(extractor, network=clean.CleanInception(Narrow()))
    stats = clean.folder_statistics(folder, "0" * 64, narrow, 64, "cpu")
    labels = np.arange(24) % 4
    (name, metric), *more = clean_distance(q.extract(images, narrow), stats, labels).items()
    assert (name, more) == ("fid_clean@24", [])
    assert metric.value == pytest.approx(theirs, rel=1e-6)
    assert metric.low < metric.value < metric.high
    # With no more images than features the library's root is singular; ours is the same distance.
    points = q.extract(images, narrow).features
    assert clean.clean_fid(points, stats) == pytest.approx(
        frechet.distance_of_images(points, stats), rel=1e-5
    )
    few = points[:NARROW]
    assert clean.clean_fid(few, stats) == frechet.distance_of_images(few, stats)


# The whole path --------------------------------------------------------------------------------------------


def test_images_become_a_row_that_names_the_protocol_apart(network, folder, tmp_path, monkeypatch):
    chosen = cell(images=12, batch=4, clean_reference=str(folder), clean_inception=str(network))
    row = row_of(chosen, tmp_path, monkeypatch)
    assert row.status == "ok"
    pins = finished(chosen).pins
    assert row.clean_reference == {"name": "real", "sha256": pins["clean_reference"], "n": 20}
    assert row.clean_protocol["extractor"] == "inception-clean"
    assert row.clean_protocol["extractor_sha256"] == pins["clean_inception"] == file_sha256(network)
    assert (row.reference, row.protocol) == (None, None)
    assert set(row.quality) == {"fd_inception@12", "fid_clean@12"}
    assert row.quality["fd_inception@12"]["value"] is None
    assert row.unmeasured["quality.fd_inception@12"].startswith("no reference: it takes --reference FILE")
    found = row.quality["fid_clean@12"]
    assert 0 < found["low"] < found["value"] < found["high"]
    assert len(row.quality_replicates["fid_clean@12"]) == 12
    assert [one.keys["clean_reference"][:4] for one in facets([row])] == ["real"]
    assert not any(claim.verdict == "reproduced" for claim in claims([row]))
    # The folder's statistics are kept: its images are not read a second time.
    monkeypatch.setattr(assess_clean.clean, "folder_statistics", None)
    again = CleanAssessor.of(finished(chosen), tmp_path / "artifacts")
    assert (again.reference.name, again.reference.n) == ("real", 20)


def test_references_in_latin_1_are_read_and_named_in_text(network, folder, tmp_path, monkeypatch):
    name = os.fsdecode("caf\xe9".encode("latin-1"))
    copy = write(tmp_path / name, pictures(20, 5))
    (copy / "000.png").rename(copy / f"{name}.png")
    chosen = cell(images=3, clean_reference=str(copy), clean_inception=str(network))
    row = row_of(chosen, tmp_path / "results", monkeypatch)
    assert (row.status, row.clean_reference["name"]) == ("ok", "caf\\udce9")
    ResultStore(tmp_path / "results").append(row)
    (loaded,) = load_rows(tmp_path / "results")
    assert loaded.clean_reference == row.clean_reference
    stats = statistics_file(tmp_path / f"{name}.npz")
    assert clean.read_clean_statistics(stats, "", clean.clean_extractor(network)).name == "caf\\udce9"


def test_a_row_judged_by_both_protocols_has_the_figures_of_both(network, folder, tmp_path, monkeypatch):
    class Adm:
        def fields(self, parts, labels):
            seen = np.concatenate(list(parts))
            assert seen.shape == (len(labels), 3, 32, 32)
            quality = {"fd_inception@6": {"value": 1.0}}
            row = {"quality": quality, "quality_replicates": {"fd_inception@6": [1.0]}, "protocol": "adm"}
            return row, {"quality.recall@6": "why"}

    monkeypatch.setattr(assess_published.PublishedAssessor, "of", lambda *_: Adm())
    chosen = finished(cell(images=6, clean_reference=str(folder), clean_inception=str(network)))
    both = dataclasses.replace(chosen, reference="adm.npz", inception="weights.pth")
    images = pictures(6, 3)
    row, why = assess_published.assess(both, tmp_path, lambda: iter([images[:4], images[4:]]), np.arange(6))
    assert list(row["quality"]) == list(row["quality_replicates"]) == ["fd_inception@6", "fid_clean@6"]
    assert (row["protocol"], row["clean_protocol"]["extractor"]) == ("adm", "inception-clean")
    assert why == {"quality.recall@6": "why"}


def test_generate_prints_the_distance_from_a_statistics_file(network, tmp_path, capsys):
    stats = statistics_file(tmp_path / "custom_clean.npz")
    text = "strategy=par,network=small-par,checkpoint=random,tokenizer_checkpoint=random,batch=2"
    arguments = ["generate", text, "--images", "4", "--out", str(tmp_path / "out"), "--threads", "1"]
    assert main([*arguments, "--clean-reference", str(stats), "--clean-inception", str(network)]) == 0
    out = capsys.readouterr().out
    assert "fid_clean@4: " in out
    assert "fd_inception@4: no reference" in out


def test_missing_files_leave_the_distance_null_and_nothing_is_downloaded(
    network, folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    monkeypatch.setattr("cleanfid.downloads_helper.check_download_inception", None)
    row = row_of(cell(clean_reference=str(folder)), tmp_path, monkeypatch)
    assert (row.status, row.quality["fid_clean@3"]["value"]) == ("ok", None)
    assert row.unmeasured["quality.fid_clean@3"].startswith("no Inception of clean-fid's: no file")
    row = row_of(cell(clean_inception=str(network)), tmp_path, monkeypatch)
    assert row.unmeasured["quality.fid_clean@3"].startswith("no reference of clean-fid's")
    with pytest.raises(TypeError):  # asked for, it is tried
        finished(cell(clean_inception="download"))
    # The file in torch's folder is used where a reference asks for it, and changes no other cell.
    bare = finished(cell()).key
    default = clean.clean_weights_file()
    default.parent.mkdir(parents=True, exist_ok=True)
    default.symlink_to(network)
    assert finished(cell(clean_reference=str(folder))).clean_inception == str(default)
    assert finished(cell()).key == bare


def test_files_are_part_of_the_key_by_their_content_and_of_no_image(network, folder, tmp_path):
    whole = finished(cell(clean_reference=str(folder), clean_inception=str(network)))
    copy = write(tmp_path / "copy", pictures(20, 5))
    assert finished(cell(clean_reference=str(copy), clean_inception=str(network))).key == whole.key
    (copy / "000.png").unlink()
    assert finished(cell(clean_reference=str(copy), clean_inception=str(network))).key != whole.key
    assert whole.key != finished(cell()).key
    assert unscored(whole).key == finished(cell()).key


# What is refused -------------------------------------------------------------------------------------------


def test_wrong_files_are_one_line(network, folder, tmp_path, small_zoo):
    np.savez(tmp_path / "adm.npz", mu=np.zeros(2048), sigma=np.eye(2048), mu_s=np.zeros(2023))
    np.savez(tmp_path / "half.npz", mu=np.zeros(2048))
    statistics_file(tmp_path / "wide.npz", mu=np.zeros(64))
    (tmp_path / "empty").mkdir()
    torch.save({"x": torch.zeros(3)}, tmp_path / "state.pt")
    for name in ("pointer.pt", "pointer.npz"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n", encoding="utf-8")
    (tmp_path / "page.npz").write_text("<!doctype html><title>Sign in</title>", encoding="utf-8")
    torch.jit.script(Layers()).save(str(tmp_path / "bare.pt"))
    broken = Published()
    broken.layers.mix.data[0, 0] = torch.nan
    torch.jit.script(broken.eval()).save(str(tmp_path / "nan.pt"))
    expected = {
        ("clean_reference", "absent.npz"): "no such file",
        ("clean_reference", "adm.npz"): "is an ADM reference (mu_s)",
        ("clean_reference", "half.npz"): "lacks sigma",
        ("clean_reference", "wide.npz"): "mu must be floats [2048], got float64 [64]",
        ("clean_reference", "empty"): "holds 0 images",
        ("clean_inception", "absent.pt"): "no such file; expected a path or 'download'",
        ("clean_inception", "state.pt"): "no TorchScript Inception",
        ("clean_inception", "bare.pt"): "no TorchScript Inception",
        ("clean_inception", "nan.pt"): "mix' is NaN or infinite",
        ("clean_inception", "pointer.pt"): "a pointer of Git LFS",
        ("clean_inception", "empty"): "a folder; expected a file",
        ("clean_reference", "pointer.npz"): "a pointer of Git LFS",
        ("clean_reference", "page.npz"): "a web page",
    }
    for (key, name), words in expected.items():
        with pytest.raises(UserError) as error:
            finished(cell(**{key: str(tmp_path / name)}))
        assert words in str(error.value), (key, name)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="clean_reference and clean_inception too"):
        finished(Cell("lpd", zoo=str(small_zoo), clean_reference=str(folder)))


def test_rows_of_another_clean_reference_or_network_are_not_compared():
    def row(sha256: str = "a" * 64, extractor_sha256: str = "b" * 64, **changes):
        protocol = {"colour": "c", "labels": "l", "extractor": "inception-clean"}
        settings = {
            "tier": "published",
            "clean_reference": {"name": "val", "sha256": sha256, "n": None},
            "clean_protocol": protocol | {"extractor_sha256": extractor_sha256},
        }
        return base_row(1, **settings | changes)

    keys = quantity("fid_clean@12").keys
    assert keys == CLEAN_KEYS
    assert quantity("fid_clean@12").lower_is_better
    require_comparable([row(), row(steps=7)], keys)
    for other, key in (
        (row(sha256="c" * 64, cell="f" * 16), "clean_reference"),
        (row(extractor_sha256="d" * 64, cell="f" * 16), "clean_extractor"),
    ):
        with pytest.raises(Incomparable) as error:
            require_comparable([row(), other], keys)
        assert error.value.keys == (key,)
        assert len(facets([row(), other])) == 2
