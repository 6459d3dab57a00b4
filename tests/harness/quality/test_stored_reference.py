"""The reference that a zoo keeps equals the one that its images give, and judges no other images."""

import gzip
import io

import numpy as np
import pytest
import torch

from harness.cell.cell import Cell
from harness.images.data import Dataset, load_dataset
from harness.images.names import metric_name
from harness.quality import Extractor, ReferenceStats, extract
from harness.quality.assess import controlled
from harness.quality.assess.controlled import Assessor
from harness.quality.assess.stored import EVERY, FILE, store_reference, stored_reference
from harness.quality.classifiers import ClassifierConfig, FeatureNetwork, load_features
from harness.sweep import job
from harness.sweep.messages import Channel
from pardec.errors import UserError


@pytest.fixture(scope="module")
def extractor():
    torch.manual_seed(0)
    return Extractor.of("fashion", FeatureNetwork(ClassifierConfig(width=4, features=5)))


def test_reference_is_read_again_without_images(extractor, tmp_path):
    images = torch.randint(0, 256, (120, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    dataset = Dataset("fashion", "train", images, torch.zeros(120).long(), ("a",), "")
    store_reference(dataset, extractor, tmp_path)
    found = stored_reference(tmp_path, extractor, "fashion-train")
    expected = ReferenceStats.of(extract(images, extractor))
    assert found is not None
    np.testing.assert_array_equal(found.mu, expected.mu)
    np.testing.assert_array_equal(found.sigma, expected.sigma)
    assert (found.n, found.sha256) == (120, expected.sha256)
    points = ReferenceStats.of(extract(images[::EVERY], extractor))
    np.testing.assert_allclose(found.points, points.points, rtol=1e-4, atol=1e-5)
    assert found.kernel_mean == pytest.approx(points.kernel_mean, rel=1e-4)
    np.testing.assert_allclose(found.radii, points.radii, rtol=1e-3)


def test_reference_of_another_feature_network_is_none(extractor, tmp_path):
    assert stored_reference(tmp_path, extractor, "fashion-train") is None
    images = torch.zeros(50, 3, 32, 32, dtype=torch.uint8)
    store_reference(
        Dataset("fashion", "train", images, torch.zeros(50).long(), ("a",), ""), extractor, tmp_path
    )
    other = Extractor("fashion", "another", extractor.network)
    assert (tmp_path / FILE).is_file()
    assert stored_reference(tmp_path, other, "fashion-train") is None


@pytest.mark.parametrize(
    ("spec", "name"),
    [("fashion", "fashion"), ("idx:folder", "fashion"), ("imagefolder:x", "images")],
)
def test_distances_are_named_by_their_data(spec, name):
    assert metric_name(spec) == name


# Against the images of a cell -------------------------------------------------------------------------------


def write_train(folder, images, labels):
    """The two files of a training split as idx files."""
    folder.mkdir()
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        head = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, dtype=">u4").tobytes()
        (folder / f"train-{kind}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))


@pytest.fixture
def own_zoo(small_zoo, tmp_path):
    """A zoo whose reference is that of forty images in tmp_path / "same"."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    labels = (np.arange(40) % 10).astype(np.uint8)
    write_train(tmp_path / "same", pixels, labels)
    pixels[7, 3, 3] ^= 255
    write_train(tmp_path / "other", pixels, labels)
    folder = tmp_path / "zoo"
    folder.mkdir()
    for role in ("features", "judge"):
        (folder / f"{role}.safetensors").write_bytes((small_zoo / f"{role}.safetensors").read_bytes())
    features = load_features(folder / "features.safetensors")
    store_reference(
        load_dataset(f"idx:{tmp_path / 'same'}", "train"),
        Extractor.of("fashion", features, features.sha256),
        folder,
    )
    return folder


def test_a_folder_of_the_same_training_images_has_the_stored_reference(own_zoo, tmp_path, monkeypatch):
    cell = Cell("real", data=f"idx:{tmp_path / 'same'}", zoo=str(own_zoo), device="cpu")
    found = Assessor.of(cell, tmp_path / "kept").reference
    assert (found.name, found.n) == ("fashion-train", 40)
    monkeypatch.setattr(controlled, "load_dataset", None)  # they are read once per result folder
    assert Assessor.of(cell, tmp_path / "kept").reference.sha256 == found.sha256


def test_a_folder_of_other_training_images_is_not_judged_by_the_stored_reference(own_zoo, tmp_path):
    cell = Cell("real", data=f"idx:{tmp_path / 'other'}", zoo=str(own_zoo), device="cpu")
    with pytest.raises(UserError, match=r"data 'idx:.*other': its training images .* expected the files of"):
        Assessor.of(cell, tmp_path / "kept")


def test_other_training_images_are_refused_before_anything_is_decoded(own_zoo, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "load", None)
    cell = Cell("raster", data=f"idx:{tmp_path / 'other'}", zoo=str(own_zoo), device="cpu", threads=1)
    with pytest.raises(UserError, match="its training images"):
        job.measure_cell(cell, tmp_path, Channel(io.BytesIO()))


def test_one_image_has_no_quality_and_a_reason(own_zoo, tmp_path):
    assessor = Assessor.of(Cell("real", zoo=str(own_zoo), device="cpu"), tmp_path / "kept")
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    fields, reasons = assessor.fields(images, torch.zeros(1).long())
    assert (fields, reasons) == ({}, {"quality": "quality needs at least 2 images"})
