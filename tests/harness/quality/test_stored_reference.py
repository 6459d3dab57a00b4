"""The reference that a zoo keeps equals the one that its images give."""

import numpy as np
import pytest
import torch

from harness.images.data import Dataset
from harness.images.names import metric_name
from harness.quality import Extractor, ReferenceStats, extract
from harness.quality.assess.stored import EVERY, FILE, store_reference, stored_reference
from harness.quality.classifiers import ClassifierConfig, FeatureNetwork


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
