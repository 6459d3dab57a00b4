"""Quality of published cells: images through an Inception network of random weights to rows and reports."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from harness import quality as q
from harness.cell.cell import Cell
from harness.cli import main
from harness.quality import frechet
from harness.quality.assess import adm as assess_published
from harness.quality.assess.adm import PublishedAssessor
from harness.quality.spatial import WIDTH, split, with_spatial
from harness.subject.pins import finished
from pardec.errors import UserError
from reports.claims import claims
from reports.comparability import QUALITY_KEYS, Incomparable, lower_is_better, require_comparable
from reports.frame import facets, metrics
from reports.tables import print_tables
from results.schema import Row
from tests.harness.quality_standins import TinyRandomConv, pictures
from tests.harness.small_published import cell, row_of, small_presets  # noqa: F401
from tests.reports.synthetic_rows import N_PUBLISHED, base_row, metric, quality_row

N = 12


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Inception state dict of the right keys and shapes, from a fixed seed."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    class Untrained(module.FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: object, **__: object) -> None:
            """Keeps what it has."""

    folder = tmp_path_factory.mktemp("inception")
    torch.save({}, folder / "none.pth")
    network = Untrained("inception-v3-compat", ["2048"], str(folder / "none.pth"))
    generator = torch.Generator().manual_seed(0)
    state = network.state_dict()
    for name, value in state.items():
        if name.endswith("conv.weight"):  # keeps the scale through the rectifiers, so that images differ
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
    torch.save(state, folder / "random.pth")
    return folder / "random.pth"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "VIRTUAL_imagenet256_labeled.npz"
    np.savez(path, arr_0=pictures(8, 5).transpose(0, 2, 3, 1))
    return path


@pytest.fixture(scope="module")
def inception(weights: Path) -> q.Extractor:
    return with_spatial(q.inception_extractor(weights))


# The whole path --------------------------------------------------------------------------------------------


def test_images_become_features_statistics_metrics_a_row_and_a_report(
    weights, reference, tmp_path, monkeypatch, capsys
):
    chosen = cell(images=N, batch=1, reference=str(reference), inception=str(weights))
    read: list[q.Features] = []

    def remember(*arguments: Any) -> q.Features:
        read.append(q.extract_parts(*arguments))
        return read[-1]

    monkeypatch.setattr(assess_published, "extract_parts", remember)
    with monkeypatch.context() as patch:
        patch.setattr(frechet, "torch_fidelity_distance", frechet.distance_of_images)  # 4 s at width 2048
        row = row_of(chosen, tmp_path, monkeypatch)
    assert row.status == "ok"
    assert row.reference == {"name": reference.stem, "sha256": finished(chosen).pins["reference"], "n": 8}
    assert row.protocol == {
        "colour": "clamp(round(127.5 x + 127.5)) to bytes, x in [-1, 1]",
        "labels": "class i % C for image i",
        "extractor": "inception",
        "extractor_sha256": finished(chosen).pins["inception"],
    }
    names = {"fd_inception", "fd_inception_inf", "fd_inception_clean", "sfd_inception", "kid_inception"}
    names |= {"is_inception", "precision", "recall"}
    assert set(row.quality) == {f"{name}@{N}" for name in names}
    unmeasurable = {f"fd_inception_inf@{N}", f"fd_inception_clean@{N}", f"is_inception@{N}"}
    for name, found in row.quality.items():
        if name in unmeasurable:
            assert found["value"] is None
            assert str(N) in row.unmeasured[f"quality.{name}"]
        else:
            assert found["low"] <= found["value"] <= found["high"]
    assert row.quality[f"sfd_inception@{N}"]["value"] > 0
    assert len(row.quality_replicates[f"fd_inception@{N}"]) == len(
        row.quality_replicates[f"sfd_inception@{N}"]
    )
    print_tables(facets([row]))
    assert "fd_inception" in capsys.readouterr().out
    assert metrics([row])[:2] == [f"fd_inception@{N}", f"fd_inception_inf@{N}"]
    assert lower_is_better(f"sfd_inception@{N}")
    # The reference's features are kept: the images of its file are not read a second time.
    monkeypatch.setattr(assess_published, "extract", None)
    again = PublishedAssessor.of(finished(chosen), tmp_path / "artifacts")
    assert again.reference.features is not None
    assert_libraries_agree(
        split(read[0])[0], again.reference.features, row.quality[f"fd_inception@{N}"]["value"]
    )


def assert_libraries_agree(fake: q.Features, real: q.Features, in_the_row: float) -> None:
    """Of the same features, at full width and in the plane that holds all points.

    Turning the features changes no distance, and in the plane scipy's root is cheap and regular.
    """
    assert fake.features.shape == (N, 2048)
    ours = frechet.distance_of_images(fake.features, q.ReferenceStats.of(real))
    assert in_the_row == pytest.approx(ours, rel=1e-3)  # torch-fidelity's
    with pytest.raises(q.Unmeasurable, match=f"singular covariance of {N} images, width 2048"):
        frechet.clean_fid_distance(fake.features, q.ReferenceStats.of(real))
    points = np.concatenate([fake.features, real.features]).astype(np.float64)
    plane = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][: len(points) - 1]
    flat = [(one.features @ plane.T).astype(np.float32) for one in (fake, real)]
    narrow = q.ReferenceStats.of(dataclasses.replace(real, features=flat[1]))
    assert frechet.torch_fidelity_distance(flat[0], narrow) == pytest.approx(ours, rel=1e-3)
    assert frechet.clean_fid_distance(flat[0], narrow) == pytest.approx(ours, rel=1e-3)


def test_spatial_features_are_the_first_seven_channels_row_by_row(inception):
    images = pictures(2, 3)
    seen: list[torch.Tensor] = []
    block = inception.network.inception.Mixed_6d
    handle = block.branch1x1.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    pooled, spatial = split(q.extract(images, inception))
    handle.remove()
    assert (
        (pooled.features.shape, spatial.features.shape) == ((2, 2048), (2, WIDTH)) == ((2, 2048), (2, 2023))
    )
    (maps,) = seen
    assert maps.shape == (2, 192, 17, 17)
    for row, column, channel in ((0, 0, 6), (0, 1, 0), (16, 16, 6), (5, 9, 3)):
        place = (row * 17 + column) * 7 + channel
        np.testing.assert_array_equal(spatial.features[:, place], maps[:, channel, row, column])
    alone = q.extract(images, q.Extractor("inception", "", inception.network.inception))
    np.testing.assert_array_equal(pooled.features, alone.features)


# Statistics ------------------------------------------------------------------------------------------------


def narrow_spatial(monkeypatch: pytest.MonkeyPatch, spatial: int) -> q.Extractor:
    """A stand-in whose last features are the spatial ones."""
    monkeypatch.setattr("harness.quality.spatial.WIDTH", spatial)
    return q.Extractor.of("inception", TinyRandomConv())


def test_statistics_come_from_the_file_and_the_rest_from_its_images(tmp_path, monkeypatch):
    extractor = narrow_spatial(monkeypatch, 4)
    images = pictures(30, 2)
    both = q.extract(images, extractor)
    arrays = {"arr_0": images.transpose(0, 2, 3, 1), "mu": np.ones(8), "sigma": np.eye(8)}
    np.savez(tmp_path / "half.npz", **arrays)
    pooled, spatial = assess_published._references(cell(), tmp_path / "half.npz", extractor, tmp_path)
    np.testing.assert_array_equal(pooled.mu, np.ones(8))
    np.testing.assert_allclose(spatial.mu, both.features[:, 8:].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(pooled.points, both.features[:, :8], rtol=1e-5)
    np.savez(tmp_path / "whole.npz", **arrays, mu_s=np.full(4, 2.0), sigma_s=2 * np.eye(4))
    _, spatial = assess_published._references(cell(), tmp_path / "whole.npz", extractor, tmp_path)
    np.testing.assert_array_equal(spatial.mu, np.full(4, 2.0))
    np.testing.assert_array_equal(spatial.sigma, 2 * np.eye(4))
    np.savez(tmp_path / "bare.npz", mu=np.ones(8), sigma=np.eye(8))
    pooled, spatial = assess_published._references(cell(), tmp_path / "bare.npz", extractor, tmp_path)
    assert (pooled.features, spatial) == (None, None)

    assessor = PublishedAssessor(cell(), extractor, pooled, spatial)
    row, why = assessor.fields([pictures(24, 1)], np.arange(24) % 5)
    assert row["quality"]["fd_inception@24"]["value"] is not None
    for name in ("precision@24", "recall@24", "kid_inception@24"):
        assert row["quality"][name]["value"] is None
        assert "no images" in why[f"quality.{name}"]
    assert "neither mu_s and sigma_s nor images" in why["quality.sfd_inception@24"]


@pytest.mark.parametrize("n", [3, 10, 12])
def test_few_images_take_small_products_to_the_same_distance(n):
    generator = np.random.default_rng(n)
    points = generator.normal(size=(n, 12)).astype(np.float32)
    reference = q.ReferenceStats.of(
        q.Features(
            generator.normal(1, 2, (40, 12)).astype(np.float32), np.zeros((40, 2), np.float32), "x", "y"
        )
    )
    assert frechet.distance_of_images(points, reference) == pytest.approx(
        frechet.distance(*frechet.moments(points), reference), rel=1e-7
    )
    if n > 3:
        groups = np.arange(n) % 5
        dense = [
            frechet.distance(mu, sigma, reference)
            for mu, sigma in frechet.moments_without_groups(points, groups)
        ]
        np.testing.assert_allclose(frechet.jackknife(points, reference, groups), dense, rtol=1e-7)


@pytest.mark.parametrize("cuts", [[37], [1, 36], [20, 7, 10], [16, 16, 5]])
def test_features_are_the_same_however_the_images_were_cut(cuts):
    extractor, images = q.Extractor.of("standin", TinyRandomConv()), pictures(37, 0)
    parts: list[NDArray[np.uint8]] = np.split(images, np.cumsum(cuts)[:-1])
    whole, cut = q.extract(images, extractor, batch=16), q.extract_parts(iter(parts), 37, extractor, batch=16)
    np.testing.assert_array_equal(cut.features, whole.features)
    assert cut.images_sha256 == whole.images_sha256 == q.sets.array_sha256(images)
    with pytest.raises(ValueError, match="38 images expected, got 37"):
        q.extract_parts(iter(parts), 38, extractor)


# What is refused, and what is left out ---------------------------------------------------------------------


def published_row(**changes) -> Row:
    reference = {"name": "VIRTUAL_imagenet256_labeled", "sha256": "a" * 64, "n": None}
    protocol = {"colour": "c", "labels": "l", "extractor": "inception", "extractor_sha256": "b" * 64}
    settings = {"tier": "published", "images": 50_000, "reference": reference, "protocol": protocol}
    return base_row(1, **settings | changes)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"images": 8}, "n"),
        ({"reference": {"name": "adm_in256_stats", "sha256": "c" * 64, "n": None}}, "reference"),
        ({"reference": {"name": "VIRTUAL_imagenet256_labeled", "sha256": "a" * 64, "n": 10}}, "reference"),
        (
            {
                "protocol": {
                    "colour": "c",
                    "labels": "l",
                    "extractor": "inception",
                    "extractor_sha256": "d" * 64,
                }
            },
            "extractor",
        ),
        (
            {
                "protocol": {
                    "colour": "c",
                    "labels": "random",
                    "extractor": "inception",
                    "extractor_sha256": "b" * 64,
                }
            },
            "labels",
        ),
    ],
)
def test_published_rows_of_another_number_reference_or_protocol_are_not_compared(changes, key):
    require_comparable([published_row(), published_row(steps=7)], QUALITY_KEYS)
    with pytest.raises(Incomparable) as error:
        require_comparable([published_row(), published_row(**changes)], QUALITY_KEYS)
    assert error.value.keys == (key,)
    assert f"{key} differs" in str(error.value)
    assert len(facets([published_row(), published_row(cell="f" * 16, **changes)])) == 2


def test_published_figures_are_read_from_rows_as_they_are_scored():
    names = [f"{name}@{N_PUBLISHED}" for name in ("fd_inception", "sfd_inception", "is_inception")]
    scored = dict(zip(names, (metric(v, 0.1, N_PUBLISHED) for v in (5.45, 6.0, 193.6)), strict=True))
    reference = {"name": "VIRTUAL_imagenet256_labeled", "sha256": "a" * 64, "n": None}
    row = quality_row(quality=scored, reference=reference)
    found = {
        (claim.figure, claim.printed): claim.verdict for claim in claims([row]) if claim.cell == row.cell
    }
    assert found["FID", "5.464"] == found["IS", "193.613"] == "reproduced"


def test_files_are_part_of_the_key_by_their_hash(weights, reference, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    bare = finished(cell())
    scored = finished(cell(reference=str(reference), inception=str(weights)))
    assert {"reference", "inception"} <= scored.pins.keys()
    assert bare.key != scored.key
    copy = tmp_path / "copy.npz"
    copy.write_bytes(reference.read_bytes())
    assert finished(cell(reference=str(copy), inception=str(weights))).key == scored.key
    np.savez(copy, arr_0=pictures(8, 6).transpose(0, 2, 3, 1))
    assert finished(cell(reference=str(copy), inception=str(weights))).key != scored.key
    default = q.inception_weights_file()
    default.parent.mkdir(parents=True)
    default.symlink_to(weights)
    assert finished(cell(reference=str(reference))).key == scored.key
    assert finished(cell()).key == bare.key


def test_missing_weights_leave_quality_null_and_nothing_is_downloaded(reference, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    row = row_of(cell(reference=str(reference)), tmp_path, monkeypatch)
    assert (row.status, row.quality) == ("ok", None)
    assert row.unmeasured["quality"].startswith("no Inception weights: no file")
    with pytest.raises(TypeError):  # asked for, it is tried
        finished(cell(inception="download"))


def test_wrong_files_are_one_line_before_anything_is_computed(
    weights, reference, tmp_path, capsys, small_zoo
):
    np.savez(tmp_path / "wide.npz", mu=np.zeros(64), sigma=np.zeros((64, 64)))
    np.savez(tmp_path / "floats.npz", arr_0=np.zeros((9, 4, 4, 3)))
    np.savez(tmp_path / "few.npz", arr_0=np.zeros((3, 4, 4, 3), np.uint8))
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    (tmp_path / "text.npz").write_text("no zip")
    torch.save({"fc.bias": torch.zeros(3)}, tmp_path / "keys.pth")
    state = torch.load(weights, weights_only=True)
    state["fc.bias"][7] = torch.nan
    torch.save(state, tmp_path / "nan.pth")
    file = tmp_path / "small.toml"
    file.write_text(
        '[[include]]\nstrategy = "par"\nnetwork = "small-par"\ncheckpoint = "random"\n'
        'tokenizer_checkpoint = "random"\nimages = 2\nbatch = 2\n'
    )
    expected = {
        ("--reference", "absent.npz"): "no such file",
        ("--reference", "wide.npz"): "mu must be floats [2048], got float64 [64]",
        ("--reference", "floats.npz"): "must be uint8",
        ("--reference", "few.npz"): "at least 4 images",
        ("--reference", "other.npz"): "neither images",
        ("--reference", "text.npz"): "can't be read",
        ("--inception", "absent.pth"): "no such file; expected a path or 'download'",
        ("--inception", "keys.pth"): "Missing key",
        ("--inception", "nan.pth"): "nan.pth: weight 'fc.bias' is NaN or infinite",
    }
    for (flag, name), words in expected.items():
        arguments = ["sweep", str(file), "--results", str(tmp_path / "out"), flag, str(tmp_path / name)]
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="reference and inception must be absent"):
        finished(Cell("lpd", zoo=str(small_zoo), reference=str(reference)))


def test_generate_prints_the_quality_of_its_images(weights, reference, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(frechet, "torch_fidelity_distance", frechet.distance_of_images)  # 4 s at width 2048
    text = "strategy=par,network=small-par,checkpoint=random,tokenizer_checkpoint=random,batch=2"
    arguments = ["generate", text, "--images", "4", "--out", str(tmp_path / "out"), "--threads", "1"]
    assert main([*arguments, "--reference", str(reference), "--inception", str(weights)]) == 0
    out = capsys.readouterr().out
    assert "4 of 4 images" in out
    assert "fd_inception@4: " in out
    assert "is_inception@4: a score over 10 splits needs at least 20 images, two for each, got 4" in out
